//! Many series into few.

use std::collections::HashMap;

use super::{
    QueryError,
    curve::{ABSENT, is_absent},
    expression::{Aggregate, Aggregation, Grouping},
    labels::Labels,
    value::{Series, Value, Work, before},
};

/// Series that are put together, in the order in which their first one came.
struct Group {
    labels: Labels,
    members: Vec<usize>,
}

pub(super) fn aggregate(
    work: &Work<'_>,
    how: &Aggregate,
    parameter: Option<Value>,
    of: Value,
) -> Result<Vec<Series>, QueryError> {
    let wanted = parameter.map(Value::scalar).transpose()?;
    let vector = of.vector()?;
    let groups = groups(&vector, &how.grouping);
    if let Some(wanted) = wanted {
        return chosen(work, vector, &groups, &wanted, how.how == Aggregation::Topk);
    }
    let mut all = Vec::with_capacity(groups.len());
    for Group { labels, members } in groups {
        work.takes(1)?;
        let column = |moment: usize| {
            let values = members.iter().map(|member| vector[*member].values[moment]);
            folded(how.how, values.filter(|value| !is_absent(*value)))
        };
        let values = (0..work.times.len()).map(column).collect();
        all.push(Series { labels, values });
    }
    Ok(all)
}

fn groups(vector: &[Series], grouping: &Grouping) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut known = HashMap::new();
    for (number, series) in vector.iter().enumerate() {
        let labels = match grouping {
            Grouping::By(names) => series.labels.only(names),
            Grouping::Without(names) => series.labels.without(names),
        };
        let index = *known.entry(labels).or_insert_with_key(|labels| {
            groups.push(Group { labels: labels.clone(), members: Vec::new() });
            groups.len() - 1
        });
        groups[index].members.push(number);
    }
    groups
}

fn folded(how: Aggregation, mut values: impl Iterator<Item = f64>) -> f64 {
    let Some(first) = values.next() else { return ABSENT };
    match how {
        Aggregation::Sum => values.fold(first, |sum, value| sum + value),
        Aggregation::Avg => {
            let (sum, count) =
                values.fold((first, 1.0), |(sum, count), value| (sum + value, count + 1.0));
            sum / count
        }
        // A NaN counts only where there is nothing else.
        Aggregation::Min => values.fold(first, f64::min),
        Aggregation::Max => values.fold(first, f64::max),
        Aggregation::Count => 1.0 + values.count() as f64,
        Aggregation::Group | Aggregation::Topk | Aggregation::Bottomk => 1.0,
    }
}

/// The largest or smallest of each group at each moment, unchanged; the largest first at the last moment.
fn chosen(
    work: &Work<'_>,
    vector: Vec<Series>,
    groups: &[Group],
    wanted: &[f64],
    largest: bool,
) -> Result<Vec<Series>, QueryError> {
    work.takes(vector.len())?;
    let mut all: Vec<Series> = Vec::new();
    for group in groups {
        let mut columns = vec![vec![ABSENT; work.times.len()]; group.members.len()];
        for moment in 0..work.times.len() {
            let value = |index: &usize| vector[group.members[*index]].values[moment];
            let mut there: Vec<usize> =
                (0..group.members.len()).filter(|index| !is_absent(value(index))).collect();
            there.sort_by(|a, b| before(value(a), value(b), largest));
            let count = if wanted[moment] >= 1.0 { wanted[moment] as usize } else { 0 };
            for index in there.into_iter().take(count) {
                columns[index][moment] = value(&index);
            }
        }
        work.in_time()?;
        let kept = group.members.iter().zip(columns);
        let kept = kept.filter(|(_, values)| values.iter().any(|value| !is_absent(*value)));
        all.extend(kept.map(|(member, values)| {
            let labels = vector[*member].labels.clone();
            Series { labels, values }
        }));
    }
    let last = |series: &Series| series.values.last().copied().unwrap_or(f64::NAN);
    all.sort_by(|a, b| before(last(a), last(b), largest));
    Ok(all)
}
