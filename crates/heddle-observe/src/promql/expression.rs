//! A query as a tree.

use super::labels::Matcher;

/// A query that was read.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) expression: Expression,
    /// What it selects, by the numbers in the tree.
    pub(crate) selectors: Vec<Selector>,
}

/// Series that are wanted.
#[derive(Debug)]
pub(crate) struct Selector {
    pub(crate) matchers: Vec<Matcher>,
    /// Seconds of a range vector.
    pub(crate) range: Option<f64>,
    /// Seconds that it looks further back.
    pub(crate) offset: f64,
}

/// What an expression comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Scalar,
    Vector,
    Matrix,
    Text,
}

impl Kind {
    /// As Prometheus calls it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
            Self::Text => "string",
        }
    }
}

#[derive(Debug)]
pub(crate) enum Expression {
    Number(f64),
    Text(String),
    Instant(usize),
    Range(usize),
    Call { function: Function, arguments: Vec<Self> },
    Aggregate(Box<Aggregate>),
    Binary(Box<Binary>),
    Negated(Box<Self>),
}

impl Expression {
    /// What it comes to.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Number(_) => Kind::Scalar,
            Self::Text(_) => Kind::Text,
            Self::Instant(_) | Self::Aggregate(_) => Kind::Vector,
            Self::Range(_) => Kind::Matrix,
            Self::Call { function, .. } => function.result(),
            Self::Negated(of) => of.kind(),
            Self::Binary(binary) => match (binary.left.kind(), binary.right.kind()) {
                (Kind::Scalar, Kind::Scalar) => Kind::Scalar,
                _ => Kind::Vector,
            },
        }
    }
}

#[derive(Debug)]
pub(crate) struct Aggregate {
    pub(crate) how: Aggregation,
    /// Of `topk` and `bottomk`.
    pub(crate) parameter: Option<Expression>,
    pub(crate) grouping: Grouping,
    pub(crate) of: Expression,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aggregation {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Group,
    Topk,
    Bottomk,
}

impl Aggregation {
    /// All of them by name.
    pub(crate) const ALL: [(&'static str, Self); 8] = [
        ("sum", Self::Sum),
        ("avg", Self::Avg),
        ("min", Self::Min),
        ("max", Self::Max),
        ("count", Self::Count),
        ("group", Self::Group),
        ("topk", Self::Topk),
        ("bottomk", Self::Bottomk),
    ];

    pub(crate) fn has_parameter(self) -> bool {
        matches!(self, Self::Topk | Self::Bottomk)
    }
}

/// By which labels series are put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Grouping {
    By(Vec<String>),
    Without(Vec<String>),
}

#[derive(Debug)]
pub(crate) struct Binary {
    pub(crate) operator: Operator,
    /// A comparison gives 0 or 1 instead of leaving out.
    pub(crate) as_bool: bool,
    pub(crate) matching: Matching,
    pub(crate) left: Expression,
    pub(crate) right: Expression,
}

/// Which series of both sides belong together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Matching {
    /// `on` these labels, else on all but these.
    pub(crate) on: bool,
    pub(crate) labels: Vec<String>,
    pub(crate) many: Many,
    /// Labels that the side with one gives to the side with many.
    pub(crate) include: Vec<String>,
}

/// Which side may have many series for one of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Many {
    #[default]
    Neither,
    Left,
    Right,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Or,
    And,
    Unless,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
}

impl Operator {
    /// All of them as written, with how tightly they bind.
    pub(crate) const ALL: [(&'static str, Self, u8); 15] = [
        ("or", Self::Or, 1),
        ("and", Self::And, 2),
        ("unless", Self::Unless, 2),
        ("==", Self::Equal, 3),
        ("!=", Self::NotEqual, 3),
        ("<", Self::Less, 3),
        ("<=", Self::LessEqual, 3),
        (">", Self::Greater, 3),
        (">=", Self::GreaterEqual, 3),
        ("+", Self::Add, 4),
        ("-", Self::Subtract, 4),
        ("*", Self::Multiply, 5),
        ("/", Self::Divide, 5),
        ("%", Self::Modulo, 5),
        ("^", Self::Power, 6),
    ];

    /// About which series there are, not about their values.
    pub(crate) fn is_set(self) -> bool {
        matches!(self, Self::Or | Self::And | Self::Unless)
    }

    pub(crate) fn is_comparison(self) -> bool {
        matches!(
            self,
            Self::Equal
                | Self::NotEqual
                | Self::Less
                | Self::LessEqual
                | Self::Greater
                | Self::GreaterEqual
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Abs,
    Absent,
    Ceil,
    Clamp,
    ClampMax,
    ClampMin,
    Floor,
    HistogramQuantile,
    Increase,
    Irate,
    LabelJoin,
    LabelReplace,
    Rate,
    Round,
    Scalar,
    Sort,
    SortDesc,
    Time,
    Vector,
}

impl Function {
    /// All of them: name, what they take, and how many of that may be left out.
    pub(crate) const ALL: [(&'static str, Self, &'static [Kind], usize); 19] = {
        use Kind::{Matrix as M, Scalar as S, Text as T, Vector as V};
        [
            ("abs", Self::Abs, &[V], 0),
            ("absent", Self::Absent, &[V], 0),
            ("ceil", Self::Ceil, &[V], 0),
            ("clamp", Self::Clamp, &[V, S, S], 0),
            ("clamp_max", Self::ClampMax, &[V, S], 0),
            ("clamp_min", Self::ClampMin, &[V, S], 0),
            ("floor", Self::Floor, &[V], 0),
            ("histogram_quantile", Self::HistogramQuantile, &[S, V], 0),
            ("increase", Self::Increase, &[M], 0),
            ("irate", Self::Irate, &[M], 0),
            // And any number of names of labels.
            ("label_join", Self::LabelJoin, &[V, T, T], 0),
            ("label_replace", Self::LabelReplace, &[V, T, T, T, T], 0),
            ("rate", Self::Rate, &[M], 0),
            ("round", Self::Round, &[V, S], 1),
            ("scalar", Self::Scalar, &[V], 0),
            ("sort", Self::Sort, &[V], 0),
            ("sort_desc", Self::SortDesc, &[V], 0),
            ("time", Self::Time, &[], 0),
            ("vector", Self::Vector, &[S], 0),
        ]
    };

    fn result(self) -> Kind {
        match self {
            Self::Scalar | Self::Time => Kind::Scalar,
            _ => Kind::Vector,
        }
    }
}
