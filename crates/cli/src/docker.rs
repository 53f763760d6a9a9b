//! Flags of `docker build` and `docker buildx build` that have no effect here, or cannot have one. Each says which, and why.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::args::Build;
use crate::report::Failure;
use crate::settings::{is_push, output_fields, truth};

/// What is said of a flag.
enum Answer {
    /// Nothing: it asks for what is done anyway.
    Fine,
    /// A note: there is nothing to do, for this reason.
    Nothing(&'static str),
    /// An error: why it cannot be done, and what to do instead. Values that ask for nothing (`0`, `false`) are fine.
    Refused(&'static str, &'static str),
    /// What is said of the value.
    Depends(fn(&str) -> Answer),
}

use Answer::{Depends, Fine, Nothing, Refused};

enum Takes {
    Value,
    Switch,
}

use Takes::{Switch, Value};

struct Flag {
    name: &'static str,
    short: Option<char>,
    takes: Takes,
    answer: Answer,
}

const fn flag(name: &'static str, takes: Takes, answer: Answer) -> Flag {
    Flag { name, short: None, takes, answer }
}

/// `-c` is docker's short form of `--cpu-shares`, and kaniko's of `--context`, which is more common.
const FLAGS: [Flag; 31] = [
    flag("allow", Value, Depends(entitlement)),
    flag("attest", Value, Depends(attestation)),
    flag("builder", Value, Nothing("there are no builders to choose from, zuwai builds by itself")),
    flag("cache-from", Value, NO_CACHE),
    flag("cache-to", Value, NO_CACHE),
    flag("cgroup-parent", Value, Refused("steps stay in the cgroup of zuwai itself", "start zuwai in that cgroup")),
    flag("compress", Switch, Nothing("no context is sent anywhere")),
    flag("cpu-period", Value, NO_LIMITS),
    flag("cpu-quota", Value, NO_LIMITS),
    flag("cpu-shares", Value, NO_LIMITS),
    flag("cpuset-cpus", Value, NO_LIMITS),
    flag("cpuset-mems", Value, NO_LIMITS),
    Flag { short: Some('D'), ..flag("debug", Switch, Nothing("all that is known is said without it")) },
    flag("detach", Switch, Refused("there is no daemon in which a build could go on", "start zuwai in the background")),
    flag("disable-content-trust", Switch, Depends(content_trust)),
    flag("force-rm", Switch, NO_CONTAINERS),
    flag("invoke", Value, Refused("there is no monitor", "`--on-failure=shell` gives a shell in a step that failed")),
    flag(
        "load",
        Switch,
        Refused("there is no daemon to load into", "`--output=type=docker,dest=- | docker load` does that"),
    ),
    Flag { short: Some('m'), ..flag("memory", Value, NO_LIMITS) },
    flag("memory-swap", Value, NO_LIMITS),
    flag("no-cache-filter", Value, Nothing("there is no cache yet, every stage is built")),
    flag("policy", Value, Refused("policies are not supported", "pin base images by their digest")),
    flag("provenance", Value, NO_ATTESTATIONS),
    flag("rm", Switch, NO_CONTAINERS),
    flag("root", Value, NO_SERVER),
    flag("sbom", Value, NO_ATTESTATIONS),
    flag("security-opt", Value, Refused("how a step is isolated has no options", "`--isolation` names a back-end")),
    flag("server-config", Value, NO_SERVER),
    flag(
        "squash",
        Switch,
        Refused("layers are not squashed", "a last stage `FROM scratch` with `COPY --from=STAGE / /` has one layer"),
    ),
    flag("stream", Switch, Nothing("no context is sent anywhere")),
    flag(
        "ulimit",
        Value,
        Refused("steps have the limits of zuwai itself", "set them where zuwai is started (`ulimit -n 65536`)"),
    ),
];

const NO_CACHE: Answer = Refused("not supported yet (the layer cache)", "leave it out, every build begins anew");
const NO_LIMITS: Answer =
    Refused("steps have no limits of their own", "limit the container or the cgroup that zuwai runs in");
const NO_CONTAINERS: Answer = Nothing("there are no intermediate containers");
const NO_SERVER: Answer = Refused("there is no build server", "leave it out");
const NO_ATTESTATIONS: Answer = Depends(attestation);

fn entitlement(value: &str) -> Answer {
    match value.split('=').next().unwrap_or_default() {
        "network.host" => Nothing("steps may use the host's network without it"),
        "security.insecure" => {
            Refused("a build without privilege has none to give", "leave out `RUN --security=insecure`")
        }
        "device" => Refused("a build without privilege has no devices to give", "leave out `RUN --device`"),
        _ => Refused("no such entitlement is known", "there are network.host, security.insecure and device"),
    }
}

fn attestation(value: &str) -> Answer {
    if asks_for_nothing(value)
        || value
            .split(',')
            .any(|field| field.trim().strip_prefix("disabled=").is_some_and(|it| truth(it) == Some(true)))
    {
        return Fine;
    }
    Refused("not supported yet (attestations)", "leave it out, or say `false`: images are then the same")
}

fn content_trust(value: &str) -> Answer {
    match truth(value) {
        Some(false) => Refused("signatures of images are not checked", "pin base images by their digest"),
        _ => Nothing("signatures of images are not checked"),
    }
}

/// Those flags that were given.
#[derive(Debug)]
pub struct Given(Vec<(&'static str, String)>);

impl Given {
    /// What there is to say of flags that have no effect.
    ///
    /// # Errors
    /// The first flag that cannot have its effect.
    pub fn notes(&self) -> Result<Vec<String>, Failure> {
        let mut notes = Vec::new();
        for (name, value) in &self.0 {
            let Some(flag) = FLAGS.iter().find(|flag| flag.name == *name).filter(|_| !value.is_empty()) else {
                continue;
            };
            let answer = match &flag.answer {
                Depends(judge) => &judge(value),
                Refused(..) if asks_for_nothing(value) => &Fine,
                answer => answer,
            };
            match answer {
                Fine | Depends(_) => {}
                Nothing(why) => notes.push(format!("`--{name}` has no effect: {why}")),
                Refused(why, instead) => {
                    let message = format!("`--{name}`: {why}");
                    return Err(Failure::Usage { message, hint: Some((*instead).to_owned()) });
                }
            }
        }
        notes.dedup();
        Ok(notes)
    }
}

/// What docker has where the flag is not given.
fn asks_for_nothing(value: &str) -> bool {
    value == "0" || truth(value) == Some(false)
}

/// Of outputs that are for an image store, which there is none.
pub fn output_notes(typed: &Build) -> Result<Vec<String>, Failure> {
    let mut notes = Vec::new();
    for spec in &typed.output.output {
        let kind = output_fields(spec).remove("type").unwrap_or_default();
        if matches!(kind.as_str(), "image" | "registry") && !is_push(spec, typed.output.push)? {
            notes.push(format!("`--output {spec}`: there is no image store, so nothing is kept of the image"));
        }
    }
    Ok(notes)
}

impl Args for Given {
    fn augment_args(command: Command) -> Command {
        FLAGS.iter().fold(command, |command, flag| {
            let arg = Arg::new(flag.name).long(flag.name).hide(true).action(ArgAction::Append);
            let arg = match flag.short {
                Some(short) => arg.short(short),
                None => arg,
            };
            command.arg(match flag.takes {
                Value => arg.num_args(1).allow_negative_numbers(true),
                Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Given, clap::Error> {
        let values = |flag: &'static Flag| {
            let values = matches.get_many::<String>(flag.name).into_iter().flatten();
            values.map(|value| (flag.name, value.clone()))
        };
        Ok(Given(FLAGS.iter().flat_map(values).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Given::from_arg_matches(matches)?;
        Ok(())
    }
}
