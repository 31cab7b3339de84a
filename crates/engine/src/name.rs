//! Names of containers: what is allowed, and made-up ones for those that got none.

use crate::error::{Error, Result};

const ADJECTIVES: &[&str] = &[
    "amber", "ample", "autumn", "balmy", "blithe", "breezy", "bright", "brisk", "calm", "candid", "cheery",
    "civil", "clear", "cosy", "crisp", "deft", "dewy", "dulcet", "eager", "early", "earnest", "fair",
    "festive", "fleet", "fluent", "fond", "frank", "fresh", "gallant", "gentle", "genuine", "glad", "golden",
    "hale", "hardy", "hearty", "honest", "humble", "jaunty", "jolly", "jovial", "keen", "kind", "lively",
    "loyal", "lucid", "mellow", "merry", "mild", "modest", "neat", "nimble", "noble", "patient", "placid",
    "plucky", "polite", "proud", "quick", "quiet", "ready", "robust", "rosy", "sage", "serene", "sincere",
    "snug", "sober", "spry", "stable", "steady", "sturdy", "sunny", "supple", "swift", "tidal", "tidy",
    "tranquil", "true", "upbeat", "valiant", "verdant", "vivid", "warm", "wise", "witty", "zesty",
];

/// People who built, crossed or charted waters.
const SURNAMES: &[&str] = &[
    "amundsen",
    "archimedes",
    "barents",
    "baret",
    "bazalgette",
    "beaufort",
    "bering",
    "bougainville",
    "bowditch",
    "brunel",
    "cabot",
    "caird",
    "clark",
    "cook",
    "cousteau",
    "dias",
    "drake",
    "drebbel",
    "earle",
    "eiffel",
    "ericson",
    "fitzroy",
    "flinders",
    "fourneyron",
    "froude",
    "gama",
    "gray",
    "grubenmann",
    "halley",
    "harrison",
    "hero",
    "hudson",
    "humboldt",
    "jansky",
    "kelvin",
    "lalande",
    "laperouse",
    "leeghwater",
    "lesseps",
    "magellan",
    "maury",
    "mercator",
    "monier",
    "nansen",
    "navier",
    "nemo",
    "parsons",
    "perronet",
    "piccard",
    "polo",
    "pytheas",
    "rennie",
    "riquet",
    "roebling",
    "ross",
    "sadler",
    "scoresby",
    "shackleton",
    "slocum",
    "smeaton",
    "stevenson",
    "stevin",
    "tasman",
    "telford",
    "tharp",
    "torricelli",
    "trajan",
    "vauban",
    "vespucci",
    "vitus",
    "watt",
    "worsley",
    "zhenghe",
];

/// A name `adjective_surname` chosen by `random`; from the third try on with a digit at its end.
pub(crate) fn generate(random: u64, attempt: u32) -> String {
    let adjective = ADJECTIVES[(random % ADJECTIVES.len() as u64) as usize];
    let surname = SURNAMES[((random >> 20) % SURNAMES.len() as u64) as usize];
    if attempt < 2 {
        format!("{adjective}_{surname}")
    } else {
        format!("{adjective}_{surname}{}", (random >> 48) % 10u64.saturating_pow(attempt - 1))
    }
}

/// Checks a name that a client gave; a leading slash is taken off, as Docker does.
pub(crate) fn parse(name: &str) -> Result<&str> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let mut bytes = bare.bytes();
    let valid = bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bare.len() >= 2
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if valid {
        Ok(bare)
    } else {
        Err(Error::invalid(format!(
            "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_pattern() {
        for good in ["ab", "/web", "a1", "0_x", "a.b-c_d"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "/", "-ab", "a b", "a/b", ".ab", "aé", "a\n"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            parse("e ngx").unwrap_err().message,
            "Invalid container name (e ngx), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        );
    }

    #[test]
    fn made_up_names_are_valid() {
        for random in (0..u64::MAX).step_by((u64::MAX / 1000) as usize) {
            for attempt in 0..6 {
                let name = generate(random, attempt);
                assert_eq!(parse(&name).unwrap(), name);
            }
        }
        assert_eq!(generate(0, 0), "amber_amundsen");
    }

    #[test]
    fn word_lists_are_sorted_and_without_doubles() {
        for list in [ADJECTIVES, SURNAMES] {
            assert!(list.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
