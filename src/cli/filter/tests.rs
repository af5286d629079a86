use super::*;
use crate::cli::rows::Rows;
use crate::inspect::{LimitReport, Usage};
use proptest::prelude::*;

fn columns() -> Columns {
    Columns::of::<LimitReport>()
}

fn limit() -> LimitReport {
    LimitReport {
        key: "team:\"a\\b\"".into(),
        kind: "window",
        window_s: Some(600),
        resets_in_s: None,
        requests: Some(Usage { used: 30, limit: Some(20) }),
        tokens: None,
        parallel: None,
        remaining: None,
        retry_after_ms: Some(1_500),
        used_pct: Some(85.5),
        allowed: 9_007_199_254_740_993,
        denied: 0,
        moving: false,
        ..LimitReport::default()
    }
}

fn matches(text: &str) -> bool {
    let columns = columns();
    let filter =
        Filter::parse(text, &columns).unwrap_or_else(|message| panic!("{text}: {message}"));
    let mut rows = Rows::new(&columns);
    rows.read(&limit());
    filter.matches(rows.row(0))
}

#[test]
fn comparisons() {
    for (text, expected) in [
        ("used_pct > 80", true),
        ("used_pct>85.5", false),
        ("used_pct >= 85.5%", true),
        ("requests.used = 30 and requests.limit < 21", true),
        ("requests.used != 30", false),
        ("allowed = 9007199254740993", true),
        ("allowed = 9007199254740992", false),
        ("window_s = 10m and window_s <= 0.5h and window_s<1d", true),
        ("retry_after_ms = 1500000us and retry_after_ms < 2s", true),
        (r#"key ~ "^team""#, true),
        (r"key ~ '^team:.a\\b'", true),
        (r"key ~ '^team:.a\B'", false),
        (r"key ~ 'a\\\\b'", true),
        (r#"key !~ "^TEAM" and key ~ "(?i)^TEAM""#, true),
        (r#"key = "team:\"a\\b\"""#, true),
        (r#"kind != "gcra" AND NOT kind == 'gcra'"#, true),
        ("moving", false),
        ("moving = true or moving != false", false),
        ("denied = 0 or moving and moving", true),
        ("(denied = 0 or moving) and moving", false),
        ("not (denied = 0 or moving)", false),
        ("not not denied = -0", true),
    ] {
        assert_eq!(matches(text), expected, "{text}");
    }
}

/// Of what is absent only the contrary is true.
#[test]
fn absent_values_match_nothing_but_a_denial() {
    for text in ["remaining = 0", "remaining < 1", "remaining >= 0", "tokens.used <= 5"] {
        assert!(!matches(text), "{text}");
        assert!(matches(&format!("not {text}")), "{text}");
    }
    assert!(matches("remaining != 0"));
}

#[test]
fn refusals_say_where_and_what_to_do() {
    let columns = columns();
    for (text, at, says) in [
        ("", 1, "a column is missing; write it like"),
        ("used_pct", 9, "use = != < <= > >= ~ or !~ after used_pct"),
        ("used_pct >", 11, "a value is missing"),
        ("used > 80", 1, "no column \"used\"; use one of key, kind, window_s"),
        ("moving or ürge = 1", 11, "no column \"ürge\""),
        ("key = team", 7, "key is text, \"team\" is not; quote it: key = \"abc\""),
        ("key = 5", 7, "quote it"),
        ("key < \"a\"", 5, "use = != ~ or !~, not <"),
        ("key ~ \"(\"", 7, "no regular expression"),
        ("key = \"abc", 7, "close it with another \""),
        ("used_pct ~ \"8\"", 10, "used_pct is a number; use ="),
        ("used_pct > \"8\"", 12, "write used_pct > 80"),
        ("used_pct > 0eప", 12, "is no unit of used_pct; use %"),
        ("used_pct > 8x", 12, "\"x\" is no unit of used_pct; use %"),
        ("window_s > 8w", 12, "use ns, us, ms, s, m, h or d"),
        ("denied > 8s", 10, "denied has no unit \"s\""),
        ("denied > -", 10, "\"-\" is no number; write one like"),
        ("window_s > 1e308d", 12, "too large"),
        ("moving > 1", 8, "write moving = true or moving = false"),
        ("moving moving", 8, "join comparisons with and, or"),
        ("(moving", 8, "\")\" is missing"),
        ("(moving denied", 9, "close the parenthesis"),
        ("moving)", 7, "is not expected here"),
        ("moving & denied", 8, "'&' means nothing here"),
        ("= 5", 1, "\"=\" is no column"),
    ] {
        let message = Filter::parse(text, &columns).expect_err(text);
        assert!(message.starts_with(&format!("at character {at}: ")), "{text}: {message}");
        assert!(message.contains(says), "{text}: {message}");
    }
    for deep in ["(", "not "] {
        let message = Filter::parse(&deep.repeat(100_000), &columns).expect_err(deep);
        assert!(message.contains("levels"), "{message}");
    }
}

fn test() -> impl Strategy<Value = Filter> {
    let order = prop::sample::select(vec![
        Order::Equal,
        Order::NotEqual,
        Order::Less,
        Order::LessOrEqual,
        Order::Greater,
        Order::GreaterOrEqual,
    ]);
    let finite = any::<f64>().prop_filter("finite", |value| value.is_finite());
    let number = prop_oneof![any::<i128>().prop_map(Number::Whole), finite.prop_map(Number::Float)];
    let text = || any::<String>();
    let pattern = text().prop_map(|text| regex_lite::escape(&text));
    prop_oneof![
        (order, number).prop_map(|(order, number)| ("used_pct", Is::Number(order, number))),
        (any::<bool>(), text()).prop_map(|(equal, text)| ("key", Is::Text { equal, text })),
        (any::<bool>(), pattern).prop_map(|(like, text)| {
            ("kind", Is::Like { like, pattern: Pattern(Regex::new(&text).unwrap()) })
        }),
        any::<(bool, bool)>().prop_map(|(equal, value)| ("moving", Is::Bool { equal, value })),
    ]
    .prop_map(|(name, is)| {
        Filter::Test(Test { column: columns().find(name).unwrap(), name: name.into(), is })
    })
}

fn filter() -> impl Strategy<Value = Filter> {
    test().prop_recursive(6, 48, 4, |inner| {
        let several = || prop::collection::vec(inner.clone(), 2..5);
        prop_oneof![
            several().prop_map(Filter::Any),
            several().prop_map(Filter::All),
            inner.clone().prop_map(|one| Filter::Not(Box::new(one))),
        ]
    })
}

/// Bits of the language in any order.
fn nearly() -> impl Strategy<Value = String> {
    let words = vec![
        "key",
        "used_pct",
        "moving",
        "window_s",
        "and",
        "or",
        "not",
        "(",
        ")",
        "=",
        "!=",
        "<",
        "~",
        "!~",
        "\"",
        "'",
        "\\",
        "\"^a\"",
        "'('",
        "80",
        "8%",
        "1e",
        "1e-5",
        "-",
        "10m",
        ".",
        "µ",
        " ",
        "true",
        "ü",
        "\u{10ffff}",
    ];
    prop::collection::vec(prop::sample::select(words), 0..24).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn a_written_filter_reads_as_itself(filter in filter()) {
        let text = filter.to_string();
        prop_assert_eq!(Filter::parse(&text, &columns()), Ok(filter), "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused(text in prop_oneof![any::<String>(), nearly()]) {
        let columns = columns();
        match Filter::parse(&text, &columns) {
            Ok(filter) => {
                let mut rows = Rows::new(&columns);
                rows.read(&limit());
                let again = Filter::parse(&filter.to_string(), &columns);
                prop_assert_eq!(again.as_ref(), Ok(&filter));
                prop_assert_eq!(filter.matches(rows.row(0)), again.unwrap().matches(rows.row(0)));
            }
            Err(message) => prop_assert!(message.starts_with("at character "), "{}", message),
        }
    }
}
