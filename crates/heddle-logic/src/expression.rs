//! What an expression of a `Telemetry` comes to for one request or connection. Names and types were checked
//! when it was read (`heddle_model::yaml::expression`).

use std::borrow::Cow;

use heddle_model::yaml::expression::{Attribute, Expression, Literal, Operator, Test};

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A text.
    Text(Cow<'a, str>),
    /// A time in nanoseconds.
    Duration(i64),
}

impl<'a> Value<'a> {
    /// A text.
    pub fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(text.into())
    }

    /// A number; the greatest for one that is too large.
    #[must_use]
    pub fn int(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }

    /// As a tag has it.
    #[must_use]
    pub fn shown(self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Text(text) => text.into_owned(),
            Self::Duration(nanos) => format!("{}s", nanos as f64 / 1e9),
        }
    }
}

/// What is known of a request or a connection.
pub trait Attributes {
    /// `None` for what is not known of it, or what it does not have.
    fn value(&self, attribute: &Attribute) -> Option<Value<'_>>;
}

/// Does the condition hold? One that asks for something absent does not, as in Envoy.
#[must_use]
pub fn holds(condition: &Expression, of: &dyn Attributes) -> bool {
    evaluate(condition, of) == Some(Value::Bool(true))
}

/// What it comes to; `None` where that depends on something absent.
pub fn evaluate<'a>(expression: &'a Expression, of: &'a dyn Attributes) -> Option<Value<'a>> {
    match expression {
        Expression::Literal(literal) => Some(match literal {
            Literal::Bool(value) => Value::Bool(*value),
            Literal::Int(value) => Value::Int(*value),
            Literal::Text(text) => Value::text(text.as_str()),
            Literal::Duration(nanos) => Value::Duration(*nanos),
        }),
        Expression::Attribute(attribute) => of.value(attribute),
        Expression::Has(attribute) => Some(Value::Bool(of.value(attribute).is_some())),
        Expression::Not(inner) => match evaluate(inner, of)? {
            Value::Bool(value) => Some(Value::Bool(!value)),
            _ => None,
        },
        Expression::Binary(operator, left, right) => binary(*operator, left, right, of),
        Expression::In(item, list) => {
            let item = evaluate(item, of)?;
            let mut list = list.iter().filter_map(|one| evaluate(one, of));
            Some(Value::Bool(list.any(|one| one == item)))
        }
        Expression::If(condition, then, other) => match evaluate(condition, of)? {
            Value::Bool(true) => evaluate(then, of),
            Value::Bool(false) => evaluate(other, of),
            _ => None,
        },
        Expression::Test(test, left, right) => {
            let (left, right) = (evaluate(left, of)?, evaluate(right, of)?);
            let (Value::Text(left), Value::Text(right)) = (left, right) else { return None };
            Some(Value::Bool(match test {
                Test::StartsWith => left.starts_with(&*right),
                Test::EndsWith => left.ends_with(&*right),
                Test::Contains => left.contains(&*right),
            }))
        }
        Expression::Matches(inner, pattern) => match evaluate(inner, of)? {
            Value::Text(text) => Some(Value::Bool(pattern.matches(&text))),
            _ => None,
        },
        Expression::Shown(inner) => Some(Value::text(evaluate(inner, of)?.shown())),
        Expression::Size(inner) => match evaluate(inner, of)? {
            Value::Text(text) => Some(Value::int(text.chars().count() as u64)),
            _ => None,
        },
    }
}

/// In CEL one side of `&&` and `||` that decides alone does so, whatever becomes of the other.
fn binary<'a>(
    operator: Operator,
    left: &'a Expression,
    right: &'a Expression,
    of: &'a dyn Attributes,
) -> Option<Value<'a>> {
    let left = evaluate(left, of);
    let decided = match operator {
        Operator::And => Some(Value::Bool(false)),
        Operator::Or => Some(Value::Bool(true)),
        _ => None,
    };
    if decided.is_some() {
        if left == decided {
            return left;
        }
        let right = evaluate(right, of);
        return if right == decided || left.is_some() { right } else { None };
    }
    let (left, right) = (left?, evaluate(right, of)?);
    let order = match (&left, &right) {
        (Value::Int(a), Value::Int(b)) | (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        _ => return None,
    };
    Some(Value::Bool(match operator {
        Operator::Equal => order.is_eq(),
        Operator::Differs => order.is_ne(),
        Operator::Less => order.is_lt(),
        Operator::AtMost => order.is_le(),
        Operator::Greater => order.is_gt(),
        Operator::AtLeast => order.is_ge(),
        Operator::Plus => return plus(left, right),
        Operator::And | Operator::Or => return None,
    }))
}

fn plus<'a>(left: Value<'a>, right: Value<'a>) -> Option<Value<'a>> {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => a.checked_add(b).map(Value::Int),
        (Value::Text(a), Value::Text(b)) => Some(Value::text(format!("{a}{b}"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A failed request of somebody who sent one header.
    struct Known;

    impl Attributes for Known {
        fn value(&self, attribute: &Attribute) -> Option<Value<'_>> {
            Some(match attribute {
                Attribute::ResponseCode => Value::Int(503),
                Attribute::Method => Value::text("GET"),
                Attribute::Path => Value::text("/api/v1?x=1"),
                Attribute::Duration => Value::Duration(250_000_000),
                Attribute::Mtls => Value::Bool(false),
                Attribute::RequestHeader(name) if name == "user-agent" => Value::text("curl/8"),
                _ => return None,
            })
        }
    }

    #[test]
    fn conditions_hold_as_cel_says() {
        for (text, expected) in [
            ("response.code >= 400", true),
            ("response.code < 400", false),
            ("response.code >= 400 && request.method == 'GET'", true),
            ("request.method in ['POST', 'PUT']", false),
            ("request.method in ['POST', 'GET']", true),
            ("request.headers['user-agent'].startsWith('curl')", true),
            ("request.path.contains('v1') && !connection.mtls", true),
            ("request.path.matches('v[0-9]')", true),
            ("request.path.matches('^v[0-9]')", false),
            ("request.duration > duration('200ms')", true),
            ("has(request.headers['user-agent'])", true),
            ("has(request.host)", false),
            ("'x-absent' in request.headers", false),
            ("request.path.size() == 11", true),
            ("response.code + 1 == 504", true),
            ("'a' + 'b' == 'ab'", true),
            ("string(response.code) + '!' == '503!'", true),
            ("string(connection.mtls) == 'false'", true),
            ("has(request.host) ? false : true", true),
        ] {
            let read = Expression::parse_condition(text).unwrap();
            assert_eq!(holds(&read, &Known), expected, "{text}");
        }
    }

    #[test]
    fn what_is_absent_decides_nothing_and_is_overruled() {
        for (text, expected) in [
            ("request.host == 'a'", None),
            ("request.host != 'a'", None),
            ("!(request.host == 'a')", None),
            ("request.host == 'a' || response.code == 503", Some(true)),
            ("response.code == 503 || request.host == 'a'", Some(true)),
            ("request.host == 'a' && response.code == 200", Some(false)),
            ("request.host == 'a' && response.code == 503", None),
            ("response.code == 503 && request.host == 'a'", None),
            ("request.host == 'a' || response.code == 200", None),
        ] {
            let read = Expression::parse_condition(text).unwrap();
            assert_eq!(evaluate(&read, &Known), expected.map(Value::Bool), "{text}");
        }
    }
}
