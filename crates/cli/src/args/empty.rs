//! A flag with an empty value is not given: pipelines write `--target=$TARGET` and leave the variable empty. The same goes for an
//! empty variable that stands for a flag.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command};

/// Flags that say something with an empty value, by their long names.
const MEANT: [&str; 1] = [
    // kaniko: no helper at all.
    "credential-helpers",
];

/// `words` (the program's name, a sub-command, its flags) without the flags of `command` whose value is empty.
pub fn drop_flags(command: &Command, words: Vec<OsString>) -> Vec<OsString> {
    let known = words.get(1).and_then(|name| command.find_subcommand(name));
    let Some(known) = known else { return words };
    let mut words = words.into_iter().peekable();
    let mut kept: Vec<OsString> = words.by_ref().take(2).collect();
    while let Some(word) = words.next() {
        if word == "--" {
            kept.push(word);
            break;
        }
        let Some(flag) = word.to_str().and_then(|word| Flag::of(known, word)) else {
            kept.push(word);
            continue;
        };
        let takes_next = flag.value.is_none() && !flag.arg.is_require_equals_set();
        let empty = match flag.value {
            Some(value) => value.is_empty(),
            None => takes_next && words.peek().is_some_and(|next| next.is_empty()),
        };
        if empty && !flag.is_meant() {
            kept.extend((!flag.before.is_empty()).then(|| format!("-{}", flag.before).into()));
            if takes_next {
                words.next();
            }
            continue;
        }
        // What it takes is no flag, whatever it looks like.
        let value = if takes_next && flag.needs_value() { words.next() } else { None };
        kept.push(word);
        kept.extend(value);
    }
    kept.extend(words);
    kept
}

/// `command` without the variables that are empty.
pub fn drop_variables(command: Command, is_empty: &dyn Fn(&OsStr) -> bool) -> Command {
    command.mut_subcommands(|known| {
        known.mut_args(|arg| match arg.get_env().is_some_and(is_empty) {
            true => arg.env(None::<&str>),
            false => arg,
        })
    })
}

/// A flag that takes a value, as it was typed.
struct Flag<'a, 'w> {
    arg: &'a Arg,
    /// What stands in the same word.
    value: Option<&'w str>,
    /// Short flags in the same word: the `q` of `-qf`.
    before: &'w str,
}

impl<'a, 'w> Flag<'a, 'w> {
    fn of(command: &'a Command, word: &'w str) -> Option<Flag<'a, 'w>> {
        if let Some(long) = word.strip_prefix("--") {
            let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            let arg = command.get_arguments().find(|arg| has_name(arg, name)).filter(|arg| takes_value(arg))?;
            return Some(Flag { arg, value, before: "" });
        }
        let letters = word.strip_prefix('-')?;
        for (at, letter) in letters.char_indices() {
            let arg = command.get_arguments().find(|arg| arg.get_short() == Some(letter))?;
            let rest = &letters[at + letter.len_utf8()..];
            // Without `=` such a one has no value, and what follows are other flags.
            let may_follow = arg.is_require_equals_set() && !rest.is_empty() && !rest.starts_with('=');
            if takes_value(arg) && !may_follow {
                let value = (!rest.is_empty()).then(|| rest.strip_prefix('=').unwrap_or(rest));
                return Some(Flag { arg, value, before: &letters[..at] });
            }
        }
        None
    }

    fn is_meant(&self) -> bool {
        self.arg.get_long().is_some_and(|name| MEANT.contains(&name))
    }

    fn needs_value(&self) -> bool {
        self.arg.get_num_args().is_none_or(|range| range.min_values() > 0)
    }
}

/// A switch does, too, when it may be written `--push=false`.
fn takes_value(arg: &Arg) -> bool {
    let may = arg.get_num_args().is_some_and(|range| range.takes_values());
    !arg.is_positional() && (may || arg.get_action().takes_values())
}

fn has_name(arg: &Arg, name: &str) -> bool {
    arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Cli;

    fn parsed(words: &[&str]) -> String {
        let words = ["zuwai"].iter().chain(words).map(OsString::from).collect();
        match crate::args::parse(words) {
            Ok(cli) => format!("{cli:?}"),
            Err(error) => panic!("{error}"),
        }
    }

    /// Every flag that clap knows of, under each of its names and in each way to write an empty value.
    #[test]
    fn an_empty_value_is_none_whatever_the_flag() {
        let command = Cli::command();
        let mut flags = 0;
        for known in command.get_subcommands() {
            let without = parsed(&[known.get_name()]);
            for arg in known.get_arguments().filter(|arg| takes_value(arg)) {
                let longs = arg.get_long().into_iter().chain(arg.get_all_aliases().unwrap_or_default());
                let shorts = arg.get_short().map(|short| format!("-{short}"));
                for name in longs.map(|long| format!("--{long}")).chain(shorts) {
                    let joined = format!("{name}=");
                    let mut ways = vec![vec![known.get_name(), &joined]];
                    if !arg.is_require_equals_set() {
                        ways.push(vec![known.get_name(), &name, ""]);
                    }
                    for words in ways {
                        let meant = MEANT.iter().any(|meant| arg.get_long() == Some(meant));
                        assert_eq!(parsed(&words) == without, !meant, "{words:?}");
                    }
                    flags += 1;
                }
            }
        }
        assert!(flags > 100, "{flags} names are not all");
    }

    #[test]
    fn what_is_not_empty_stays() {
        let cases: &[(&[&str], &[&str])] = &[
            (&["build", "--target=", "--target=a", "."], &["build", "--target=a", "."]),
            (&["build", "-qf=", "."], &["build", "-q", "."]),
            (&["build", "-qf", "", "."], &["build", "-q", "."]),
            (&["build", "-f-", "-f=x", "."], &["build", "-f-", "-f=x", "."]),
            // Values that look like flags, and flags that take no next word.
            (&["build", "--build-arg", "--target=", "-t", "-f="], &["build", "--build-arg", "--target=", "-t", "-f="]),
            (&["build", "--build-arg=A=", "--label", "b="], &["build", "--build-arg=A=", "--label", "b="]),
            (&["build", "--push", "", "--quiet", ""], &["build", "--push", "", "--quiet", ""]),
            (&["build", "--push=", "--cache="], &["build"]),
            (&["build", "--check", "--target="], &["build", "--check"]),
            (&["build", "--", "--target="], &["build", "--", "--target="]),
            (&["build", "--target"], &["build", "--target"]),
            (&["build", "--unknown=", "-Z="], &["build", "--unknown=", "-Z="]),
            (&["unknown", "--target="], &["unknown", "--target="]),
            (&[], &[]),
        ];
        let command = Cli::command();
        for (words, expected) in cases {
            let all = |words: &[&str]| ["zuwai"].iter().chain(words).map(OsString::from).collect::<Vec<_>>();
            assert_eq!(drop_flags(&command, all(words)), all(expected));
        }
    }

    #[test]
    fn an_empty_variable_is_none() {
        let variables = |command: &Command| {
            let args = command.get_subcommands().flat_map(Command::get_arguments);
            args.filter_map(|arg| arg.get_env()).map(OsStr::to_owned).collect::<Vec<_>>()
        };
        let all = variables(&Cli::command());
        assert!(all.iter().any(|name| name == "KANIKO_REGISTRY_MIRROR"), "{all:?}");
        assert_eq!(variables(&drop_variables(Cli::command(), &|_| false)), all);
        assert_eq!(variables(&drop_variables(Cli::command(), &|_| true)), [""; 0]);
        let left = variables(&drop_variables(Cli::command(), &|name| name == "ZUWAI_DIR"));
        assert!(left.len() < all.len() && !left.iter().any(|name| name == "ZUWAI_DIR"), "{left:?}");
    }
}
