//! The limits that can be changed while a node runs, by name. `[pure]`

use super::{Limits, LimitsError};

macro_rules! named {
    ($($field:ident),+ $(,)?) => {
        impl Limits {
            /// The names of the limits that [`crate::Mesh::set_limits`] can change, each the name of its field.
            pub const CHANGEABLE: &[&str] = &[$(stringify!($field)),+];

            /// Sets one of the changeable limits. Says nothing about whether they still hold together.
            ///
            /// # Errors
            ///
            /// A name that is not changeable, with the nearest one that is.
            pub fn set(&mut self, name: &str, value: u64) -> Result<(), LimitsError> {
                match name {
                    $(stringify!($field) => {
                        self.$field = value
                            .try_into()
                            .map_err(|_| LimitsError::new(format!("{name} of {value} is more than any node can use")))?;
                    })+
                    _ => return Err(LimitsError::new(unknown(name))),
                }
                Ok(())
            }

            /// The value of one of the changeable limits; `None` for a name that is none.
            pub fn get(&self, name: &str) -> Option<u64> {
                match name {
                    $(stringify!($field) => Some(self.$field as u64),)+
                    _ => None,
                }
            }
        }
    };
}

named! {
    connections_max,
    inbound_max,
    known_reserve,
    relay_connections_max,
    connections_per_ipv4_max,
    connections_per_ipv6_56_max,
    connections_per_ipv6_48_max,
    handshakes_max,
    handshakes_per_listener_max,
    speculative_max,
    retry_above,
    dials_max,
}

fn unknown(name: &str) -> String {
    let distance = |known: &&&str| strsim::levenshtein(name, known);
    let nearest = Limits::CHANGEABLE.iter().min_by_key(distance);
    let all = || Limits::CHANGEABLE.join(", ");
    match nearest {
        Some(known) if distance(&known) <= 3 => {
            format!("no limit `{name}` can be changed while the node runs; did you mean `{known}`?")
        }
        Some(_) | None => format!("no limit `{name}` can be changed while the node runs; these can: {}", all()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_set_by_its_name_and_a_typing_error_is_understood() {
        let mut limits = Limits::default();
        limits.set("inbound_max", 7).unwrap();
        assert_eq!(limits.inbound_max, 7);
        let error = |name| Limits::default().set(name, 1).unwrap_err().to_string();
        assert!(error("inbuond_max").ends_with("did you mean `inbound_max`?"));
        assert!(error("idle_timeout").contains("these can: connections_max, "));
        for name in Limits::CHANGEABLE {
            assert!(limits.set(name, 1).is_ok(), "{name}");
            assert_eq!(limits.get(name), Some(1), "{name}");
        }
        assert_eq!(limits.get("idle_timeout"), None);
    }
}
