//! A text as a QR code of half blocks, two modules to a character, as light on dark as a terminal is. `[pure]`

use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2, types::QrError};

/// The code, with the margin that scanners need. Light modules are painted: most terminals are dark.
///
/// # Errors
///
/// A text of more than 2,953 bytes.
pub(crate) fn code(text: &str) -> Result<String, QrError> {
    // The lowest correction makes the smallest code, and a screen has no stains.
    let code = QrCode::with_error_correction_level(text, EcLevel::L)?;
    Ok(code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

/// Columns and rows of a rendered code.
pub(crate) fn size(code: &str) -> (usize, usize) {
    (code.lines().map(|line| line.chars().count()).max().unwrap_or_default(), code.lines().count())
}

#[cfg(test)]
mod tests {
    use qrcode::Color;

    use super::*;

    #[test]
    fn the_blocks_are_the_modules_of_the_code_with_a_margin() {
        let text = "endpointabahzikn3hcu6fw6hqtxdqtkvfobhpq";
        let expected = QrCode::with_error_correction_level(text, EcLevel::L).unwrap();
        let shown = code(text).unwrap();
        let lines: Vec<Vec<char>> = shown.lines().map(|line| line.chars().collect()).collect();
        let is_light = |x: usize, y: usize| match lines[y / 2][x] {
            '█' => true,
            ' ' => false,
            '▀' => y.is_multiple_of(2),
            '▄' => !y.is_multiple_of(2),
            other => panic!("{other:?} is no half block"),
        };
        let (width, margin) = (expected.width(), 4);
        assert_eq!(size(&shown), (width + 2 * margin, (width + 2 * margin).div_ceil(2)));
        for y in 0..width + 2 * margin {
            for x in 0..width + 2 * margin {
                let is_inside = (margin..margin + width).contains(&x) && (margin..margin + width).contains(&y);
                let is_dark = is_inside && expected[(x - margin, y - margin)] == Color::Dark;
                assert_eq!(is_light(x, y), !is_dark, "{x} {y}");
            }
        }
    }

    #[test]
    fn a_text_that_fits_no_code_is_an_error() {
        assert!(code(&"x".repeat(2954)).is_err());
        assert!(code(&"x".repeat(2953)).is_ok());
    }
}
