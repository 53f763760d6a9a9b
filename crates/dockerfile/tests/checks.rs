//! Options of build checks, and which findings hold for which stages.

use zuwai_dockerfile::lint::Checks;
use zuwai_dockerfile::{parse, parse_with_checks};

#[test]
fn options() {
    let checks = Checks::parse(" skip=A, B;error=true;experimental=all ").unwrap();
    assert_eq!(
        (checks.skip.clone(), checks.error, checks.experimental_all),
        (vec!["A".into(), "B".into()], true, true)
    );
    assert!(!checks.reports("A") && checks.reports("C") && checks.reports("InvalidDefinitionDescription"));
    assert!(!Checks::default().reports("InvalidDefinitionDescription"));
    assert_eq!(Checks::parse(""), Ok(Checks::default()));
    assert!(!Checks::parse("skip=all").unwrap().reports("A"));
    for text in ["skip", "what=A", "error=yes", "skip=A;;"] {
        assert!(Checks::parse(text).is_err(), "{text}");
    }
}

#[test]
fn comments_add_to_the_options() {
    let checks = Checks::parse("skip=A").unwrap();
    let merged = checks.with_comment(Some("about it\nCheck = skip=B and why"));
    assert!(!merged.reports("A") && !merged.reports("B") && merged.reports("C"));
    assert_eq!(checks.with_comment(Some("check=nonsense")), checks);
    assert_eq!(checks.with_comment(Some("a=b")), checks);
}

#[test]
fn some_findings_hold_only_for_built_stages() {
    let file = parse(b"FROM a AS One\nENV A b\nFROM a\nENV A b\n").unwrap();
    let rules = |built: &[usize]| {
        let warnings = file.warnings_for(built);
        warnings.iter().map(|warning| (warning.rule.unwrap(), file.stage_at(warning.span.start))).collect::<Vec<_>>()
    };
    let casing = ("StageNameCasing", Some(0));
    assert_eq!(rules(&[]), [casing]);
    assert_eq!(rules(&[1]), [casing, ("LegacyKeyValueFormat", Some(1))]);
    assert_eq!(rules(&[0, 1]).len(), 3);
}

#[test]
fn options_from_outside_replace_the_directive() {
    let rules = |text: &str, checks: &str| {
        let file = parse_with_checks(text.as_bytes(), Some(Checks::parse(checks).unwrap())).unwrap();
        file.warnings.iter().map(|warning| warning.rule.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(rules("# check=skip=all\nFROM a AS B", ""), ["StageNameCasing"]);
    assert_eq!(rules("# check=nonsense\nFROM a AS B", "skip=StageNameCasing"), [""; 0]);
}
