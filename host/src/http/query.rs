//! Queries hold the flags of the command: `?dry_run=true&canary=25%25` is `--dry-run --canary=25%`, by the same definition, with the same defaults.

use crate::verbs::{Exit, Failure};
use clap::{CommandFactory, Parser};
use percent_encoding::percent_decode_str;

#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_version_flag = true)]
struct Flags<T: clap::Args> {
    #[command(flatten)]
    flags: T,
}

/// Err: a parameter that is none, or has no such value.
pub fn flags<T: clap::Args>(query: Option<&str>) -> Result<T, Failure> {
    let wrong = |message: String| Failure::new(Exit::Usage, format!("the query: {message}"));
    let command = Flags::<T>::command();
    let is_switch = |flag: &str| command.get_arguments().any(|known| known.get_long() == Some(flag) && !known.get_action().takes_values());
    let mut arguments = Vec::new();
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(name).map_err(wrong)?, decoded(value).map_err(wrong)?);
        let plain = name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if !plain {
            return Err(wrong(format!("there is no parameter `{name}`")));
        }
        let flag = name.replace('_', "-");
        match (is_switch(&flag), value.as_str()) {
            (false, value) => arguments.push(format!("--{flag}={value}")),
            (true, "" | "true") => arguments.push(format!("--{flag}")),
            (true, "false") => {}
            (true, other) => return Err(wrong(format!("`{name}` is `true` or `false`, not `{other}`"))),
        }
    }
    match Flags::<T>::try_parse_from(arguments) {
        Ok(parsed) => Ok(parsed.flags),
        Err(error) => {
            let text = error.render().to_string();
            let first = text.split("\n\n").next().unwrap_or_default();
            Err(wrong(first.strip_prefix("error: ").unwrap_or(first).split_whitespace().collect::<Vec<_>>().join(" ")))
        }
    }
}

fn decoded(text: &str) -> Result<String, String> {
    let text = text.replace('+', " ");
    let decoded = percent_decode_str(&text).decode_utf8().map_err(|_| format!("`{text}` is no text"))?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::{Back, How};

    fn how(query: &str) -> Result<String, String> {
        flags::<How>(Some(query)).map(|how| format!("{how:?}")).map_err(|failure| failure.error.to_string())
    }

    #[test]
    fn a_query_holds_the_flags_of_the_command() {
        assert_eq!(how("").unwrap(), format!("{:?}", flags::<How>(None).unwrap()));
        let all = how("dry_run&allow=low%3Dstate&allow=log&canary=25%25&max_errors=1%25&timeout=5").unwrap();
        for part in ["allow: [\"low=state\", \"log\"]", "dry_run: true", "Share(0.25)", "max_errors: 0.01", "timeout: 5"] {
            assert!(all.contains(part), "{part}: {all}");
        }
        assert_eq!(how("dry_run=false&shadow=false").unwrap(), how("").unwrap());
        assert!(format!("{:?}", flags::<Back>(Some("to=3")).unwrap()).contains("to: Some(3)"));
    }

    #[test]
    fn what_is_none_is_told() {
        for (query, says) in [
            ("timeout=0", "0 is not in 1..=3600"),
            ("timeout=x", "invalid value"),
            ("other=1", "--other"),
            ("-x=1", "no parameter `-x`"),
            ("dry_run=2", "`dry_run` is `true` or `false`"),
            ("canary=150%25", "expected a share"),
            ("canary=25%25&shadow=true", "cannot be used with"),
            ("allow=%ff", "is no text"),
            ("to=3", "--to"),
        ] {
            let why = how(query).expect_err(query);
            assert!(why.contains(says) && !why.contains('\n') && !why.contains("Usage"), "{query}: {why}");
        }
    }
}
