//! How this workload's requests are traced, made ready to be asked.

use std::sync::Arc;

use heddle_logic::sampling::Sampler;
use heddle_model::discovery::{CustomTag, SpanSink, Tracing};

/// What holds for the requests of one direction.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct TracePlan {
    /// Whom spans go to.
    pub to: Arc<SpanSink>,
    /// Whom they go to besides.
    pub also: Vec<Arc<SpanSink>>,
    pub(crate) sampler: Sampler,
    /// Traces per second that are recorded whatever chance says.
    pub(crate) at_least: u32,
    /// No spans, whatever is decided.
    pub(crate) silent: bool,
    /// Is chance that of the request's id, so that others decide alike?
    pub(crate) by_request_id: bool,
    /// Tags that say who the workload is.
    pub(crate) istio_tags: bool,
    /// What came goes on as it came.
    pub(crate) keeps_context: bool,
    /// Ids of traces that begin here have 64 bits.
    pub(crate) short_ids: bool,
    /// Longest value of a tag that names what was asked, bytes.
    pub(crate) tag_length: usize,
    pub(crate) tags: Vec<(Arc<str>, TagPlan)>,
}

/// Where a tag's value comes from.
#[derive(Debug)]
pub(crate) enum TagPlan {
    /// It is always this.
    Literal(Arc<str>),
    /// It is that of a field, else this.
    Header(Arc<str>, Arc<str>),
}

impl TracePlan {
    /// Builds it.
    #[must_use]
    pub fn new(tracing: &Tracing) -> Self {
        let tags = tracing.custom_tags.iter();
        let tags = tags.filter_map(|(name, tag)| Some((name.as_str().into(), TagPlan::of(tag)?)));
        Self {
            to: Arc::new(tracing.to.clone()),
            also: tracing.also.iter().cloned().map(Arc::new).collect(),
            sampler: Sampler::of_percent(tracing.sampling),
            at_least: tracing.at_least,
            silent: tracing.reports_nothing,
            by_request_id: tracing.by_request_id,
            istio_tags: tracing.istio_tags,
            keeps_context: tracing.keeps_context,
            short_ids: matches!(&tracing.to, SpanSink::Zipkin(zipkin) if zipkin.short_ids),
            tag_length: tracing.max_tag_length as usize,
            tags: tags.collect(),
        }
    }
}

impl TagPlan {
    /// `None`: it has no value here.
    fn of(tag: &CustomTag) -> Option<Self> {
        match tag {
            CustomTag::Literal(text) => Some(Self::Literal(text.as_str().into())),
            CustomTag::Header(source) => Some(Self::Header(
                source.name.to_ascii_lowercase().into(),
                source.default.as_str().into(),
            )),
            // The environment of a process does not change.
            CustomTag::Environment(source) => {
                let value = std::env::var(&source.name).ok().filter(|value| !value.is_empty());
                let value = value.unwrap_or_else(|| source.default.clone());
                (!value.is_empty()).then(|| Self::Literal(value.into()))
            }
        }
    }
}
