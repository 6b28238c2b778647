//! The grammar: who binds closer, and which two go together.

use super::{
    terms::{Attribute, DEPTH_MAX, Expression, Literal, Operator, PeerField, Sort, Test},
    token::{Token, tokens},
};
use crate::{
    pattern::{Case, Pattern},
    yaml::value::duration,
};

type Read = Result<Expression, String>;

/// Reads all of `text`.
pub(super) fn parse(text: &str) -> Read {
    let mut parser = Parser { rest: tokens(text)?.into_iter().peekable(), depth: 0 };
    if parser.rest.peek().is_none() {
        return Err("the expression is empty".to_owned());
    }
    let read = parser.choice()?;
    match parser.rest.next() {
        None => Ok(read),
        Some(token) => Err(format!("{} is not expected behind what can be read", shown(&token))),
    }
}

struct Parser {
    rest: std::iter::Peekable<std::vec::IntoIter<Token>>,
    depth: u32,
}

fn shown(token: &Token) -> String {
    match token {
        Token::Word(text) => format!("`{text}`"),
        Token::Sign(sign) => format!("`{sign}`"),
        Token::Int(number) => format!("`{number}`"),
        Token::Text(text) => format!("'{}'", text.escape_debug()),
    }
}

fn two_sorts(what: &str, left: Sort, right: Sort) -> String {
    format!("`{what}` between {} and {}: both must be of one sort", left.name(), right.name())
}

fn must_be(what: &str, expected: Sort, found: &Expression) -> Result<(), String> {
    if found.sort() == expected {
        return Ok(());
    }
    Err(format!("`{what}` takes {}, not {}", expected.name(), found.sort().name()))
}

impl Parser {
    fn takes(&mut self, sign: &'static str) -> bool {
        self.rest.next_if_eq(&Token::Sign(sign)).is_some()
    }

    fn must_take(&mut self, sign: &'static str) -> Result<(), String> {
        match self.rest.next() {
            Some(Token::Sign(found)) if found == sign => Ok(()),
            Some(token) => Err(format!("`{sign}` is missing before {}", shown(&token))),
            None => Err(format!("the expression ends where `{sign}` is missing")),
        }
    }

    fn word(&mut self) -> Result<String, String> {
        match self.rest.next() {
            Some(Token::Word(word)) => Ok(word),
            Some(token) => Err(format!("{} stands where a name belongs", shown(&token))),
            None => Err("the expression ends behind a `.`".to_owned()),
        }
    }

    fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, String>,
    ) -> Result<T, String> {
        if self.depth >= DEPTH_MAX {
            return Err(format!("the expression is nested more than {DEPTH_MAX} deep"));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// `a ? b : c`.
    fn choice(&mut self) -> Read {
        self.nested(|this| {
            let condition = this.any_of()?;
            if !this.takes("?") {
                return Ok(condition);
            }
            must_be("?", Sort::Bool, &condition)?;
            let then = this.any_of()?;
            this.must_take(":")?;
            let other = this.choice()?;
            if then.sort() != other.sort() {
                return Err(two_sorts(":", then.sort(), other.sort()));
            }
            Ok(Expression::If(condition.into(), then.into(), other.into()))
        })
    }

    fn any_of(&mut self) -> Read {
        let mut left = self.all_of()?;
        while self.takes("||") {
            left = both("||", Operator::Or, left, self.all_of()?)?;
        }
        Ok(left)
    }

    fn all_of(&mut self) -> Read {
        let mut left = self.relation()?;
        while self.takes("&&") {
            left = both("&&", Operator::And, left, self.relation()?)?;
        }
        Ok(left)
    }

    fn relation(&mut self) -> Read {
        let left = self.sum()?;
        let operators = [
            ("==", Operator::Equal),
            ("!=", Operator::Differs),
            ("<=", Operator::AtMost),
            (">=", Operator::AtLeast),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        for (sign, operator) in operators {
            if self.takes(sign) {
                let right = self.sum()?;
                if left.sort() != right.sort() {
                    return Err(two_sorts(sign, left.sort(), right.sort()));
                }
                let ordered = !matches!(operator, Operator::Equal | Operator::Differs);
                if ordered && left.sort() == Sort::Bool {
                    return Err(format!("`{sign}` takes no boolean"));
                }
                return Ok(Expression::Binary(operator, left.into(), right.into()));
            }
        }
        if self.rest.next_if_eq(&Token::Word("in".to_owned())).is_some() {
            return self.membership(left);
        }
        Ok(left)
    }

    /// What stands behind `in`: a list, or the headers.
    fn membership(&mut self, item: Expression) -> Read {
        if !self.takes("[") {
            let name = self.word()?;
            self.must_take(".")?;
            let name = format!("{name}.{}", self.word()?);
            let Expression::Literal(Literal::Text(header)) = &item else {
                return Err(format!("before `in {name}` stands the name of a header, in quotes"));
            };
            return header_of(&name, header).map(Expression::Has);
        }
        let mut list = Vec::new();
        while !self.takes("]") {
            let one = self.nested(Self::sum)?;
            if one.sort() != item.sort() {
                return Err(two_sorts("in", item.sort(), one.sort()));
            }
            list.push(one);
            if !self.takes(",") {
                self.must_take("]")?;
                break;
            }
        }
        if list.is_empty() {
            return Err("nothing is in an empty list".to_owned());
        }
        Ok(Expression::In(item.into(), list))
    }

    fn sum(&mut self) -> Read {
        let mut left = self.unary()?;
        while self.takes("+") {
            let right = self.unary()?;
            match (left.sort(), right.sort()) {
                (Sort::Int, Sort::Int) | (Sort::Text, Sort::Text) => {
                    left = Expression::Binary(Operator::Plus, left.into(), right.into());
                }
                (left, right) => return Err(two_sorts("+", left, right)),
            }
        }
        Ok(left)
    }

    fn unary(&mut self) -> Read {
        if self.takes("!") {
            let inner = self.nested(Self::unary)?;
            must_be("!", Sort::Bool, &inner)?;
            return Ok(Expression::Not(inner.into()));
        }
        let mut read = self.primary()?;
        // A name has taken the parts that are its own.
        while self.takes(".") {
            let method = self.word()?;
            read = self.method(&method, read)?;
        }
        Ok(read)
    }

    fn primary(&mut self) -> Read {
        match self.rest.next() {
            None => Err("the expression ends where a value is missing".to_owned()),
            Some(Token::Int(number)) => Ok(Expression::Literal(Literal::Int(number))),
            Some(Token::Text(text)) => Ok(Expression::Literal(Literal::Text(text))),
            Some(Token::Sign("(")) => {
                let inner = self.choice()?;
                self.must_take(")")?;
                Ok(inner)
            }
            Some(Token::Sign(sign)) => Err(format!("`{sign}` stands where a value belongs")),
            Some(Token::Word(word)) => match word.as_str() {
                "true" => Ok(Expression::Literal(Literal::Bool(true))),
                "false" => Ok(Expression::Literal(Literal::Bool(false))),
                _ if self.takes("(") => self.function(&word),
                _ => self.attribute(word).map(Expression::Attribute),
            },
        }
    }

    /// `request.method`, `request.headers['x']`, `request.headers.x`.
    fn attribute(&mut self, first: String) -> Result<Attribute, String> {
        if !self.takes(".") {
            return Attribute::named(&first);
        }
        let name = format!("{first}.{}", self.word()?);
        match name.as_str() {
            "filter_state.upstream_peer" => self.peer(&name).map(Attribute::UpstreamPeer),
            "filter_state.downstream_peer" => self.peer(&name).map(Attribute::DownstreamPeer),
            _ if name.ends_with(".headers") => {
                let header = self.entry(&name, "header")?;
                header_of(&name, &header)
            }
            _ => Attribute::named(&name),
        }
    }

    /// What stands behind a peer: `.workload`, `.labels['app']`.
    fn peer(&mut self, peer: &str) -> Result<PeerField, String> {
        self.must_take(".")?;
        let field = self.word()?;
        if field != "labels" {
            return PeerField::named(&field);
        }
        self.entry(&format!("{peer}.labels"), "label").map(PeerField::Label)
    }

    /// The name of an entry of `map`, behind it: `['x']` or `.x`.
    fn entry(&mut self, map: &str, what: &str) -> Result<String, String> {
        let by_name = || format!("`{map}` is asked for a {what} by its name: `{map}['x']`");
        if self.takes("[") {
            let Some(Token::Text(name)) = self.rest.next() else { return Err(by_name()) };
            self.must_take("]")?;
            return Ok(name);
        }
        if !self.takes(".") {
            return Err(by_name());
        }
        let name = self.word()?;
        if self.rest.peek() == Some(&Token::Sign("(")) {
            return Err(format!("`{name}` is not carried out for `{map}`: ask for one {what}"));
        }
        Ok(name)
    }

    fn function(&mut self, name: &str) -> Read {
        match name {
            "has" => {
                let Some(Token::Word(word)) = self.rest.next() else {
                    return Err("`has` takes a name such as `response.code`".to_owned());
                };
                let attribute = self.attribute(word)?;
                self.must_take(")")?;
                Ok(Expression::Has(attribute))
            }
            "size" => {
                let inner = self.choice()?;
                must_be("size", Sort::Text, &inner)?;
                self.must_take(")")?;
                Ok(Expression::Size(inner.into()))
            }
            "string" => {
                let inner = self.choice()?;
                self.must_take(")")?;
                Ok(Expression::Shown(inner.into()))
            }
            "duration" => {
                let Some(Token::Text(text)) = self.rest.next() else {
                    return Err("`duration` takes a text such as '200ms'".to_owned());
                };
                self.must_take(")")?;
                let nanos = i64::try_from(duration(&text)?.as_nanos());
                nanos.map(Literal::Duration).map(Expression::Literal).map_err(|e| e.to_string())
            }
            _ => Err(format!(
                "`{name}(…)` is not carried out here: use `has`, `size`, `string` or `duration`"
            )),
        }
    }

    fn method(&mut self, name: &str, of: Expression) -> Read {
        let test = match name {
            "startsWith" => Some(Test::StartsWith),
            "endsWith" => Some(Test::EndsWith),
            "contains" => Some(Test::Contains),
            "matches" | "size" => None,
            _ => {
                return Err(format!(
                    "`{name}` is not carried out here: use `startsWith`, `endsWith`, `contains`, `matches` or `size`"
                ));
            }
        };
        must_be(name, Sort::Text, &of)?;
        self.must_take("(")?;
        if name == "size" {
            self.must_take(")")?;
            return Ok(Expression::Size(of.into()));
        }
        let argument = self.choice()?;
        self.must_take(")")?;
        must_be(name, Sort::Text, &argument)?;
        let Some(test) = test else {
            let Expression::Literal(Literal::Text(pattern)) = argument else {
                return Err("`matches` takes a regex in quotes".to_owned());
            };
            // CEL looks for it anywhere, a rule's pattern is for the whole.
            Pattern::new(&pattern, Case::Sensitive).map_err(|error| error.to_string())?;
            let anywhere = format!("(?s:.*)(?:{pattern})(?s:.*)");
            let pattern = Pattern::new(&anywhere, Case::Sensitive);
            return Ok(Expression::Matches(of.into(), pattern.map_err(|error| error.to_string())?));
        };
        Ok(Expression::Test(test, of.into(), argument.into()))
    }
}

fn header_of(headers: &str, name: &str) -> Result<Attribute, String> {
    let name = name.to_ascii_lowercase();
    match headers {
        "request.headers" => Ok(Attribute::RequestHeader(name)),
        "response.headers" => Ok(Attribute::ResponseHeader(name)),
        _ => Err(format!(
            "`{headers}` has nothing that is known here: use `request.headers` or `response.headers`"
        )),
    }
}

fn both(sign: &str, operator: Operator, left: Expression, right: Expression) -> Read {
    must_be(sign, Sort::Bool, &left)?;
    must_be(sign, Sort::Bool, &right)?;
    Ok(Expression::Binary(operator, left.into(), right.into()))
}
