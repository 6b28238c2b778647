//! From the words of a query to its tree, which is checked as a whole: an expression of the wrong kind, or what is not
//! supported, is refused before anything is loaded.

use super::{
    QueryError,
    expression::{
        Aggregate, Aggregation, Binary, Expression, Function, Grouping, Kind, Many, Matching,
        Operator, Query, Selector,
    },
    labels::{Matcher, NAME},
    lexer::{Token, Word, bad, words},
};
use crate::limits;

pub(crate) use super::lexer::duration;

/// Expressions within expressions.
const DEPTH_MAX: usize = 48;
/// Levels of a query's tree: chains of operators add up to those of brackets. Whoever walks the tree calls itself so
/// often, which fits into the 2 MiB of a thread's stack many times.
const HEIGHT_MAX: usize = 128;
/// Matchers with regular expressions of a query, each of which is compiled.
const REGEXES_MAX: usize = 64;
/// Selectors of a query.
const SELECTORS_MAX: usize = 32;
/// What minus binds: tighter than multiplication, looser than powers.
const UNARY: u8 = 6;

/// Reads a query.
///
/// # Errors
/// What is wrong with it and where, or what is not supported.
pub(crate) fn parse(text: &str) -> Result<Query, QueryError> {
    let mut parser = Parser::new(text)?;
    let expression = parser.expression(0, 0)?;
    parser.end()?;
    Ok(Query { expression, selectors: parser.selectors })
}

/// Reads selectors alone, as `match[]` has them; together they have no more regular expressions than one query.
///
/// # Errors
/// What is wrong with one.
pub(crate) fn parse_selectors(texts: &[String]) -> Result<Vec<Vec<Matcher>>, QueryError> {
    let mut regexes = 0;
    let mut all = Vec::new();
    for text in texts {
        let mut parser = Parser { regexes, ..Parser::new(text)? };
        all.push(parser.matchers()?);
        parser.end()?;
        regexes = parser.regexes;
    }
    Ok(all)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    selectors: Vec<Selector>,
    regexes: usize,
    /// Levels of the expression that was read last.
    height: usize,
}

impl Parser {
    fn new(text: &str) -> Result<Self, QueryError> {
        if text.len() > limits::QUERY_BYTES_MAX {
            let limit = limits::QUERY_BYTES_MAX;
            return Err(QueryError::BadData(format!("a query has at most {limit} bytes")));
        }
        Ok(Self { tokens: words(text)?, at: 0, selectors: Vec::new(), regexes: 0, height: 0 })
    }

    fn end(&self) -> Result<(), QueryError> {
        match self.peek() {
            Word::End => Ok(()),
            _ => Err(self.unexpected("the end of the query")),
        }
    }

    fn peek(&self) -> &Word {
        // The last word is the end, and nobody goes past it.
        &self.tokens[self.at.min(self.tokens.len() - 1)].word
    }

    fn here(&self) -> usize {
        self.tokens[self.at.min(self.tokens.len() - 1)].at
    }

    fn next(&mut self) -> Word {
        let word = self.peek().clone();
        self.at += 1;
        word
    }

    fn takes(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Word::Symbol(known) if *known == symbol);
        self.at += usize::from(found);
        found
    }

    fn takes_word(&mut self, wanted: &str) -> bool {
        let found = matches!(self.peek(), Word::Name(name) if name.eq_ignore_ascii_case(wanted));
        self.at += usize::from(found);
        found
    }

    fn needs(&mut self, symbol: &str) -> Result<(), QueryError> {
        if self.takes(symbol) { Ok(()) } else { Err(self.unexpected(&format!("`{symbol}`"))) }
    }

    fn unexpected(&self, wanted: &str) -> QueryError {
        let found = match self.peek() {
            Word::Name(name) => format!("`{name}`"),
            Word::Number(number) => number.to_string(),
            Word::Text(text) => format!("\"{text}\""),
            Word::Duration(seconds) => format!("a duration of {seconds} s"),
            Word::Symbol(symbol) => format!("`{symbol}`"),
            Word::End => "end of input".to_owned(),
        };
        bad(self.here(), &format!("unexpected {found}, expected {wanted}"))
    }

    /// Everything whose operators bind tighter than `least`.
    fn expression(&mut self, least: u8, depth: usize) -> Result<Expression, QueryError> {
        if depth > DEPTH_MAX {
            return Err(bad(self.here(), &format!("more than {DEPTH_MAX} levels deep")));
        }
        let mut left = if self.takes("-") {
            Expression::Negated(Box::new(self.expression(UNARY - 1, depth + 1)?))
        } else if self.takes("+") {
            self.expression(UNARY - 1, depth + 1)?
        } else {
            self.primary(depth)?
        };
        if let Expression::Negated(of) = &left
            && !matches!(of.kind(), Kind::Scalar | Kind::Vector)
        {
            return Err(bad(self.here(), "a minus is for scalars and instant vectors only"));
        }
        if matches!(left, Expression::Negated(_)) {
            self.grows_to(self.height + 1)?;
        }
        // A long chain is as deep a tree as one in brackets.
        let mut links = depth;
        while let Some((operator, binds)) = self.operator().filter(|(_, binds)| *binds > least) {
            self.at += 1;
            links += 1;
            if links > DEPTH_MAX {
                return Err(bad(self.here(), &format!("more than {DEPTH_MAX} levels deep")));
            }
            let at = self.here();
            let as_bool = self.takes_word("bool");
            let matching = self.matching()?;
            // A power of a power is worked out from the right.
            let least = if operator == Operator::Power { binds - 1 } else { binds };
            let left_height = self.height;
            let right = self.expression(least, depth + 1)?;
            self.grows_to(1 + left_height.max(self.height))?;
            let binary = Binary { operator, as_bool, matching, left, right };
            check_binary(&binary, at)?;
            left = Expression::Binary(Box::new(binary));
        }
        Ok(left)
    }

    /// The expression that is being read has this many levels.
    fn grows_to(&mut self, height: usize) -> Result<(), QueryError> {
        if height > HEIGHT_MAX {
            return Err(bad(self.here(), &format!("a tree of more than {HEIGHT_MAX} levels")));
        }
        self.height = height;
        Ok(())
    }

    fn operator(&self) -> Option<(Operator, u8)> {
        let word = match self.peek() {
            Word::Symbol(symbol) => (*symbol).to_owned(),
            Word::Name(name) => name.to_ascii_lowercase(),
            _ => return None,
        };
        let found = Operator::ALL.iter().find(|(known, ..)| *known == word);
        found.map(|(_, operator, binds)| (*operator, *binds))
    }

    fn matching(&mut self) -> Result<Matching, QueryError> {
        let mut matching = Matching { on: self.takes_word("on"), ..Matching::default() };
        if !matching.on && !self.takes_word("ignoring") {
            return Ok(matching);
        }
        matching.labels = self.names()?;
        matching.many = if self.takes_word("group_left") {
            Many::Left
        } else if self.takes_word("group_right") {
            Many::Right
        } else {
            return Ok(matching);
        };
        if matches!(self.peek(), Word::Symbol("(")) {
            matching.include = self.names()?;
        }
        Ok(matching)
    }

    /// Names of labels in brackets.
    fn names(&mut self) -> Result<Vec<String>, QueryError> {
        let mut names = Vec::new();
        self.needs("(")?;
        while !self.takes(")") {
            match self.next() {
                Word::Name(name) if !name.contains(':') => names.push(name),
                _ => {
                    self.at -= 1;
                    return Err(self.unexpected("the name of a label"));
                }
            }
            if !self.takes(",") && !matches!(self.peek(), Word::Symbol(")")) {
                return Err(self.unexpected("`,` or `)`"));
            }
        }
        Ok(names)
    }

    fn primary(&mut self, depth: usize) -> Result<Expression, QueryError> {
        self.height = 1;
        let expression = match self.peek().clone() {
            Word::Number(number) => {
                self.at += 1;
                Expression::Number(number)
            }
            Word::Text(text) => {
                self.at += 1;
                Expression::Text(text)
            }
            Word::Symbol("(") => {
                self.at += 1;
                let inner = self.expression(0, depth + 1)?;
                self.needs(")")?;
                inner
            }
            Word::Symbol("{") => self.selector()?,
            Word::Name(name) => self.named(&name, depth)?,
            _ => return Err(self.unexpected("an expression")),
        };
        match self.peek() {
            Word::Symbol("[") => {
                Err(bad(self.here(), "subqueries are not supported; a range follows a selector"))
            }
            _ => Ok(expression),
        }
    }

    /// What begins with a name: a number, an aggregation, a call or a selector.
    fn named(&mut self, name: &str, depth: usize) -> Result<Expression, QueryError> {
        let calls = |after: Option<&Token>| {
            matches!(after.map(|token| &token.word), Some(Word::Symbol("(")))
        };
        let is_call = calls(self.tokens.get(self.at + 1));
        let small = name.to_ascii_lowercase();
        let aggregation = Aggregation::ALL.iter().find(|(known, _)| *known == small);
        if let Some((_, how)) = aggregation {
            let grouped = self.tokens.get(self.at + 1).is_some_and(|token| {
                matches!(&token.word, Word::Name(word)
                    if word.eq_ignore_ascii_case("by") || word.eq_ignore_ascii_case("without"))
            });
            if is_call || grouped {
                self.at += 1;
                return self.aggregate(*how, depth);
            }
        }
        if is_call {
            return self.call(name, depth);
        }
        match small.as_str() {
            "inf" => self.at += 1,
            "nan" => {
                self.at += 1;
                return Ok(Expression::Number(f64::NAN));
            }
            _ => return self.selector(),
        }
        Ok(Expression::Number(f64::INFINITY))
    }

    fn grouping(&mut self) -> Result<Option<Grouping>, QueryError> {
        if self.takes_word("by") {
            return Ok(Some(Grouping::By(self.names()?)));
        }
        if self.takes_word("without") {
            return Ok(Some(Grouping::Without(self.names()?)));
        }
        Ok(None)
    }

    fn aggregate(&mut self, how: Aggregation, depth: usize) -> Result<Expression, QueryError> {
        let before = self.grouping()?;
        let at = self.here();
        let mut arguments = self.arguments(depth)?;
        let grouping = match before {
            Some(grouping) => Some(grouping),
            None => self.grouping()?,
        };
        let wanted = 1 + usize::from(how.has_parameter());
        let found = arguments.len();
        let of = arguments.pop().filter(|_| found == wanted);
        let Some(of) = of else {
            let reason = format!("wrong number of arguments: expected {wanted}, got {found}");
            return Err(bad(at, &reason));
        };
        let parameter = arguments.pop();
        expect(&of, Kind::Vector, at)?;
        if let Some(parameter) = &parameter {
            expect(parameter, Kind::Scalar, at)?;
        }
        let grouping = grouping.unwrap_or(Grouping::By(Vec::new()));
        Ok(Expression::Aggregate(Box::new(Aggregate { how, parameter, grouping, of })))
    }

    fn call(&mut self, name: &str, depth: usize) -> Result<Expression, QueryError> {
        let at = self.here();
        let found = Function::ALL.iter().find(|(known, ..)| *known == name);
        let Some((_, function, kinds, optional)) = found else {
            let all = Function::ALL.map(|(known, ..)| known).join(", ");
            let sums = Aggregation::ALL.map(|(known, _)| known).join(", ");
            let reason = format!(
                "unknown function with name \"{name}\"; supported are {all}, and over vectors {sums}"
            );
            return Err(bad(at, &reason));
        };
        self.at += 1;
        let arguments = self.arguments(depth)?;
        let endless = *function == Function::LabelJoin;
        let few = arguments.len() + optional < kinds.len();
        if few || (arguments.len() > kinds.len() && !endless) {
            let (wanted, found) = (kinds.len() - optional, arguments.len());
            let reason =
                format!("expected {wanted} argument(s) in call to \"{name}\", got {found}");
            return Err(bad(at, &reason));
        }
        let wanted = kinds.iter().copied().chain(std::iter::repeat(Kind::Text));
        for (argument, kind) in arguments.iter().zip(wanted) {
            expect(argument, kind, at)?;
        }
        Ok(Expression::Call { function: *function, arguments })
    }

    fn arguments(&mut self, depth: usize) -> Result<Vec<Expression>, QueryError> {
        let mut arguments = Vec::new();
        let mut height = 0;
        self.needs("(")?;
        while !self.takes(")") {
            arguments.push(self.expression(0, depth + 1)?);
            height = height.max(self.height);
            if !self.takes(",") && !matches!(self.peek(), Word::Symbol(")")) {
                return Err(self.unexpected("`,` or `)`"));
            }
        }
        // What they are the arguments of stands above them.
        self.grows_to(height + 1)?;
        Ok(arguments)
    }

    fn selector(&mut self) -> Result<Expression, QueryError> {
        let at = self.here();
        let matchers = self.matchers()?;
        if self.selectors.len() == SELECTORS_MAX {
            return Err(bad(at, &format!("more than {SELECTORS_MAX} selectors")));
        }
        let mut selector = Selector { matchers, range: None, offset: 0.0 };
        if self.takes("[") {
            selector.range = Some(self.positive_duration()?);
            // What follows a colon reads like a name.
            let is_resolution =
                matches!(self.peek(), Word::Name(name) if name.starts_with(':')) || self.takes(":");
            if is_resolution {
                return Err(bad(self.here(), "subqueries are not supported"));
            }
            self.needs("]")?;
        }
        if self.takes_word("offset") {
            let back = if self.takes("-") { -1.0 } else { 1.0 };
            selector.offset = back * self.positive_duration()?;
        }
        self.selectors.push(selector);
        let number = self.selectors.len() - 1;
        Ok(match self.selectors[number].range {
            Some(_) => Expression::Range(number),
            None => Expression::Instant(number),
        })
    }

    fn positive_duration(&mut self) -> Result<f64, QueryError> {
        match *self.peek() {
            Word::Duration(seconds) if seconds > 0.0 => {
                self.at += 1;
                Ok(seconds)
            }
            _ => Err(self.unexpected("a duration such as 5m")),
        }
    }

    fn matchers(&mut self) -> Result<Vec<Matcher>, QueryError> {
        let at = self.here();
        let mut matchers = Vec::new();
        if let Word::Name(name) = self.peek().clone() {
            self.at += 1;
            matchers.push(Matcher::new(NAME, "=", &name)?);
        } else if !matches!(self.peek(), Word::Symbol("{")) {
            return Err(self.unexpected("a selector"));
        }
        if self.takes("{") {
            while !self.takes("}") {
                matchers.push(self.matcher()?);
                if !self.takes(",") && !matches!(self.peek(), Word::Symbol("}")) {
                    return Err(self.unexpected("`,` or `}`"));
                }
            }
        }
        // As with Prometheus: what matches everything is a mistake.
        if matchers.iter().all(|matcher| matcher.matches("")) {
            let reason = "vector selector must contain at least one non-empty matcher";
            return Err(bad(at, reason));
        }
        Ok(matchers)
    }

    fn matcher(&mut self) -> Result<Matcher, QueryError> {
        let Word::Name(name) = self.peek().clone() else {
            return Err(self.unexpected("the name of a label"));
        };
        self.at += 1;
        let operator = match self.peek() {
            Word::Symbol(known @ ("=" | "!=" | "=~" | "!~")) => *known,
            _ => return Err(self.unexpected("`=`, `!=`, `=~` or `!~`")),
        };
        self.at += 1;
        let Word::Text(value) = self.peek().clone() else {
            return Err(self.unexpected("a quoted string"));
        };
        self.regexes += usize::from(operator.ends_with('~'));
        if self.regexes > REGEXES_MAX {
            let reason = format!("more than {REGEXES_MAX} matchers with regular expressions");
            return Err(bad(self.here(), &reason));
        }
        self.at += 1;
        Matcher::new(&name, operator, &value)
    }
}

fn expect(expression: &Expression, wanted: Kind, at: usize) -> Result<(), QueryError> {
    let found = expression.kind();
    if found == wanted {
        return Ok(());
    }
    let (wanted, found) = (wanted.as_str(), found.as_str());
    Err(bad(at, &format!("expected type {wanted}, got {found}")))
}

fn check_binary(binary: &Binary, at: usize) -> Result<(), QueryError> {
    let kinds = [binary.left.kind(), binary.right.kind()];
    if kinds.iter().any(|kind| !matches!(kind, Kind::Scalar | Kind::Vector)) {
        return Err(bad(at, "both sides of an operator are scalars or instant vectors"));
    }
    let has_scalar = kinds.contains(&Kind::Scalar);
    if binary.operator.is_set() && has_scalar {
        return Err(bad(at, "set operators are for instant vectors only"));
    }
    if binary.as_bool && !binary.operator.is_comparison() {
        return Err(bad(at, "bool modifier can only be used on comparison operators"));
    }
    let is_scalar = kinds == [Kind::Scalar, Kind::Scalar];
    if binary.operator.is_comparison() && is_scalar && !binary.as_bool {
        return Err(bad(at, "comparisons between scalars must use BOOL modifier"));
    }
    if binary.operator.is_set() && binary.matching.many != Many::Neither {
        return Err(bad(at, "no grouping allowed for set operations"));
    }
    Ok(())
}
