//! Any bytes parse or fail at a place of the source; triggers that come out parse again or fail as well.

#![no_main]

use dockerfile::{Kind, parse, parse_onbuild};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match parse(bytes) {
        Ok(file) => {
            for warning in &file.warnings {
                assert!(file.source.get(warning.span.clone()).is_some());
            }
            for instruction in file.stages.iter().flat_map(|stage| &stage.instructions) {
                assert!(file.source.get(instruction.span.clone()).is_some());
                match &instruction.kind {
                    Kind::Onbuild(onbuild) => drop(parse_onbuild(&onbuild.text)),
                    Kind::Run(run) => drop(run.program()),
                    _ => {}
                }
            }
        }
        Err(error) => assert!(error.source_text.get(error.diagnostic.span.clone()).is_some()),
    }
});
