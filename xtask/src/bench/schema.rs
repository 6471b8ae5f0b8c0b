//! What every object of `--json` holds.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

const TEXTS: [&str; 4] = ["suite", "case", "unit", "against"];
const NUMBERS: [&str; 5] = ["value", "min", "max", "against_value", "ratio"];
const KEYS: usize = TEXTS.len() + NUMBERS.len() + 3;

/// Checks the figures of a suite: an array of objects with the keys `suite`, `case`, `value`, `unit`, `min`, `max`, `runs`,
/// `against`, `against_value`, `ratio`, `goal` (a number or null) and `better` (`higher` or `lower`), and no others.
///
/// # Errors
/// The first object that is something else, and why.
pub fn check(suite: &str, figures: &Value) -> Result<()> {
    let figures = figures.as_array().with_context(|| format!("suite {suite}: no array of figures"))?;
    for figure in figures {
        check_one(suite, figure).with_context(|| format!("suite {suite}: {figure}"))?;
    }
    Ok(())
}

fn check_one(suite: &str, figure: &Value) -> Result<()> {
    let keys = figure.as_object().context("no object")?;
    for key in TEXTS {
        let text = figure[key].as_str().with_context(|| format!("{key} is no text"))?;
        ensure!(!text.is_empty(), "{key} is empty");
    }
    ensure!(figure["suite"] == suite, "the suite is another");
    // A figure that is not finite is written as null.
    let number = |key: &str| figure[key].as_f64().with_context(|| format!("{key} is no number"));
    for key in NUMBERS {
        number(key)?;
    }
    let (min, value, max) = (number("min")?, number("value")?, number("max")?);
    ensure!(min <= value && value <= max, "the value is not between min and max");
    let runs = figure["runs"].as_u64().context("runs is no count")?;
    ensure!(runs > 0, "no run");
    ensure!(figure["goal"].is_null() || figure["goal"].is_number(), "goal is neither a number nor null");
    ensure!(figure["better"] == "higher" || figure["better"] == "lower", "better is neither");
    ensure!(keys.len() == KEYS, "{} keys", keys.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::figure::{Better, Figure};
    use super::*;

    fn figure() -> Figure {
        Figure {
            suite: "esp",
            case: "seal 64 B".to_owned(),
            unit: "packets/s",
            better: Better::Higher,
            runs: vec![3.0, 1.0, 2.0],
            against: "the bare call",
            against_runs: vec![4.0],
            goal: Some(0.65),
        }
    }

    #[test]
    fn a_figure_has_the_keys_of_the_schema() {
        let object = figure().to_json();
        let wanted = json!({
            "suite": "esp", "case": "seal 64 B", "value": 2.0, "unit": "packets/s", "min": 1.0, "max": 3.0, "runs": 3,
            "against": "the bare call", "against_value": 4.0, "ratio": 0.5, "goal": 0.65, "better": "higher",
        });
        assert_eq!(object, wanted);
        let without_goal = Figure { goal: None, better: Better::Lower, ..figure() }.to_json();
        assert_eq!((&without_goal["goal"], &without_goal["better"]), (&Value::Null, &json!("lower")));
        check("esp", &json!([object, without_goal])).unwrap();
    }

    #[test]
    fn what_is_missing_of_another_kind_or_too_much_is_refused() {
        let object = figure().to_json();
        for key in object.as_object().unwrap().keys() {
            let mut without = object.clone();
            without.as_object_mut().unwrap().remove(key);
            assert!(check("esp", &json!([without])).is_err(), "without {key}");
            let mut other = object.clone();
            other[key] = json!([]);
            assert!(check("esp", &json!([other])).is_err(), "{key} is a list");
        }
        let mut more = object.clone();
        more["comment"] = json!("fast");
        assert!(check("esp", &json!([more])).is_err());
        assert!(check("ike", &json!([object])).is_err(), "of another suite");
        assert!(check("esp", &object).is_err(), "no array");
    }

    #[test]
    fn a_figure_that_could_not_be_computed_is_refused() {
        let nothing = Figure { runs: vec![0.0], against_runs: vec![0.0], ..figure() }.to_json();
        assert!(check("esp", &json!([nothing])).unwrap_err().to_string().contains("esp"));
        let unmeasured = Figure { runs: Vec::new(), ..figure() }.to_json();
        assert!(check("esp", &json!([unmeasured])).is_err());
    }
}
