//! Tests of variables.

use super::*;

fn variables() -> Variables {
    let mut variables = Variables::new(|name| match name {
        "host.hostname" => Some(Ok("web\"1\n{{ a }}".into())),
        "instance.region" => Some(Err(anyhow::anyhow!("no metadata service"))),
        _ => None,
    });
    variables.give("a", "1").unwrap();
    variables.give("app_version", "2").unwrap();
    variables
}

#[test]
fn values_are_replaced_once_and_stay_literal() {
    let variables = variables();
    assert_eq!(variables.substitute("x-{{ a }}{{app_version}}.jar").unwrap(), "x-12.jar");
    assert_eq!(variables.substitute("{{ host.hostname }}").unwrap(), "web\"1\n{{ a }}");
    assert_eq!(variables.substitute("{{{{ a }}").unwrap(), "{{ a }}");
}

#[test]
fn a_placeholder_that_cannot_be_replaced_says_why() {
    let variables = variables();
    let told = |text: &str| {
        let (first, others) = variables.resolve(text).unwrap_err();
        let told = |one: &Unresolved| (one.message(), one.hint(&variables).unwrap_or_default(), one.range(text));
        std::iter::once(&first).chain(&others).map(told).collect::<Vec<_>>()
    };
    let literal = "a literal `{{` is written `{{{{`".to_owned();
    let unset = "variable `app_versoin` is not set".to_owned();
    assert_eq!(
        told("a {{{{ {{ app_versoin }} {{ a }}{{.Names}}{{ b"),
        [
            (unset, "did you mean `app_version`?".into(), Some(7..24)),
            ("`.Names` is not a variable's name".into(), literal.clone(), Some(32..42)),
            ("`{{` without `}}`".into(), literal, Some(42..44)),
        ]
    );
    assert!(told("{{ instance.region }}")[0].0.contains("no metadata service"));
    assert_eq!(told("{{ A B }}")[0].0, "`A B` is not a variable's name");
}

#[test]
fn a_fact_is_asked_for_once() {
    let asked = Rc::new(std::cell::Cell::new(0));
    let count = asked.clone();
    let variables = Variables::new(move |_| {
        count.set(count.get() + 1);
        Some(Err(anyhow::anyhow!("no metadata service")))
    });
    let (_, others) = variables.resolve(&"{{ instance.region }}".repeat(1000)).unwrap_err();
    assert_eq!((others.len(), asked.get()), (999, 1));
}

#[test]
fn facts_cannot_be_set() {
    assert!(variables().give("instance.id", "i-1").is_err());
    assert!(variables().give("Upper", "1").is_err());
}
