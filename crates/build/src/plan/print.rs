//! The plan for people and for programs (`--dry-run`).

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Base, Plan, Stage};

/// One stage a paragraph, one step a line.
pub fn to_text(plan: &Plan) -> String {
    let mut text = String::new();
    for (index, stage) in plan.stages.iter().enumerate() {
        let target = if index == plan.target.0 { " (target)" } else { "" };
        let _ = writeln!(text, "stage {}{target}, from {}, {}", stage.name, base_text(plan, stage), stage.platform);
        for (position, step) in stage.steps.iter().enumerate() {
            let layer = if stage.layered { "layer" } else { "files" };
            let _ = writeln!(text, "  {}/{} [{layer}] {}", position + 1, stage.steps.len(), step.title);
        }
    }
    text
}

pub fn to_json(plan: &Plan) -> Value {
    let stages = plan.stages.iter().map(|stage| {
        json!({
            "name": stage.name,
            "base": base_text(plan, stage),
            "platform": stage.platform.to_string(),
            "layered": stage.layered,
            "steps": stage.steps.iter().map(|s| s.title.as_str()).collect::<Vec<_>>(),
        })
    });
    json!({ "target": plan.stage(plan.target).name, "stages": stages.collect::<Vec<_>>() })
}

fn base_text(plan: &Plan, stage: &Stage) -> String {
    match &stage.base {
        Base::Scratch => "scratch".to_owned(),
        Base::Image(base) => match &base.image.digest {
            Some(digest) => format!("{} ({digest})", base.reference),
            None => base.reference.clone(),
        },
        Base::Stage(parent) => format!("stage {}", plan.stage(*parent).name),
        Base::Directory(name) => format!("named context {name}"),
    }
}
