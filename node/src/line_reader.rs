//! Lines from a stranger: bounded, whatever is sent. Used for standard input and for control clients.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// What came next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// A line without its newline. The last line may lack one.
    Line(Vec<u8>),
    /// A line of this many bytes, more than allowed. It was skipped, not kept.
    TooLong(usize),
    /// Nothing comes any more.
    End,
}

/// Reads lines of at most `line_bytes_max` bytes.
#[derive(Debug)]
pub(crate) struct LineReader<R> {
    source: BufReader<R>,
    line_bytes_max: usize,
    /// The part of the current line that has been read and still fits.
    line: Vec<u8>,
    /// Bytes of the current line so far, skipped ones included.
    seen: usize,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    pub(crate) fn new(source: R, line_bytes_max: usize) -> Self {
        Self { source: BufReader::new(source), line_bytes_max, line: Vec::new(), seen: 0 }
    }

    /// The next line. Cancel-safe: what was read of a line stays in the reader.
    pub(crate) async fn next(&mut self) -> std::io::Result<Input> {
        loop {
            let chunk = self.source.fill_buf().await?;
            if chunk.is_empty() {
                return Ok(if self.seen == 0 { Input::End } else { self.finish() });
            }
            let newline = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..newline.unwrap_or(chunk.len())];
            self.seen += part.len();
            if self.seen <= self.line_bytes_max {
                self.line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(newline.is_some());
            self.source.consume(used);
            if newline.is_some() {
                return Ok(self.finish());
            }
        }
    }

    fn finish(&mut self) -> Input {
        let seen = std::mem::take(&mut self.seen);
        let line = std::mem::take(&mut self.line);
        if seen > self.line_bytes_max { Input::TooLong(seen) } else { Input::Line(line) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_of_any_size_are_told_apart() {
        let line = |text: &str| Input::Line(text.as_bytes().to_vec());
        check("a\n\nbcde\n", &[line("a"), line(""), line("bcde")]).await;
        check("abcd\nlast", &[line("abcd"), line("last")]).await;
        check("abcdef\nok\n", &[Input::TooLong(6), line("ok")]).await;
        check(&format!("{}\nok", "x".repeat(100_000)), &[Input::TooLong(100_000), line("ok")]).await;
        check("abcdef", &[Input::TooLong(6)]).await;
        check("", &[]).await;
    }

    async fn check(text: &str, expected: &[Input]) {
        let mut reader = LineReader::new(text.as_bytes(), 4);
        for input in expected {
            assert_eq!(reader.next().await.unwrap(), *input, "in {:?}", &text[..text.len().min(20)]);
        }
        assert_eq!(reader.next().await.unwrap(), Input::End);
    }
}
