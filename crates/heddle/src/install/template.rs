//! The part of Helm's template language that the chart uses: `{{ .Values.NAME }}`, `{{ .Release.Namespace }}`,
//! `{{ if eq .Values.NAME "text" }}` or `ne`, `{{ range .Values.LIST }}` with `{{ . }}` in it, `{{ end }}`, and `-` inside
//! the braces, which takes away blanks and line ends outside of them. A list is its items with commas. Everything else is an error, so that nothing can mean one thing there and another here.

/// What values are called, and what they are.
pub(crate) type Named<'v> = &'v [(&'static str, String)];

/// Where in a template one is.
#[derive(Clone, Copy)]
struct Around<'v> {
    /// Of the `range` that is open, the item whose turn it is.
    item: Option<&'v str>,
    /// Does what stands here count?
    counts: bool,
}

/// A template with its values.
///
/// # Errors
/// What it asks for that does not exist, or a value that cannot stand between quotes.
pub(crate) fn filled(template: &str, values: Named<'_>) -> Result<String, String> {
    let mut rest = template;
    let mut text = String::with_capacity(template.len());
    let around = Around { item: None, counts: true };
    match block(&mut rest, values, around, &mut text)? {
        true => Err("`end` without `if` or `range`".to_owned()),
        false => Ok(text),
    }
}

/// What stands before the next `end` that is this block's, or all: whether there was one.
fn block(
    rest: &mut &str,
    values: Named<'_>,
    around: Around<'_>,
    text: &mut String,
) -> Result<bool, String> {
    while let Some((before, after)) = rest.split_once("{{") {
        let (inside, behind) = after.split_once("}}").ok_or("`{{` without `}}`")?;
        let (inside, trims_before) = without(inside.strip_prefix('-'), inside);
        let (inside, trims_behind) = without(inside.strip_suffix('-'), inside);
        if around.counts {
            text.push_str(if trims_before { before.trim_end() } else { before });
        }
        *rest = if trims_behind { behind.trim_start() } else { behind };
        match inside.split_whitespace().collect::<Vec<_>>()[..] {
            ["end"] => return Ok(true),
            ["if", how @ ("eq" | "ne"), name, against] => {
                let against = against.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
                let against = against.ok_or_else(|| format!("`{inside}` compares with no text"))?;
                let holds = (value(values, name, around)? == against) == (how == "eq");
                inner(
                    "if",
                    rest,
                    values,
                    Around { counts: around.counts && holds, ..around },
                    text,
                )?;
            }
            ["range", name] => {
                let items = value(values, name, around)?.split(',').filter(|item| !item.is_empty());
                let begin = *rest;
                // Read also where there is no item, to find its end.
                inner("range", rest, values, Around { item: Some(""), counts: false }, text)?;
                for item in items {
                    *rest = begin;
                    let around = Around { item: Some(item), ..around };
                    inner("range", rest, values, around, text)?;
                }
            }
            [name] => {
                let value = value(values, name, around)?;
                text.push_str(if around.counts { value } else { "" });
            }
            _ => return Err(format!("`{}` is not understood", inside.trim())),
        }
    }
    text.push_str(if around.counts { rest } else { "" });
    *rest = "";
    Ok(false)
}

/// A block that has to end.
fn inner(
    what: &str,
    rest: &mut &str,
    values: Named<'_>,
    around: Around<'_>,
    text: &mut String,
) -> Result<(), String> {
    match block(rest, values, around, text)? {
        true => Ok(()),
        false => Err(format!("`{what}` without `end`")),
    }
}

fn without<'t>(stripped: Option<&'t str>, whole: &'t str) -> (&'t str, bool) {
    stripped.map_or((whole, false), |stripped| (stripped, true))
}

/// In a `range` a name means something of the item, and items have nothing but themselves.
fn value<'v>(values: Named<'v>, name: &str, around: Around<'v>) -> Result<&'v str, String> {
    if let Some(item) = around.item {
        return match name {
            "." => Ok(item),
            _ => Err(format!("`{name}` within `range`: there is only `.`")),
        };
    }
    let value = values.iter().find(|(known, _)| *known == name);
    let (_, value) = value.ok_or_else(|| format!("there is no value `{name}`"))?;
    if value.contains(['"', '\\', '\n', '{']) || value.chars().any(char::is_control) {
        return Err(format!(
            "`{name}` cannot be {value:?}: quotes, backslashes, braces and line ends have no place in it"
        ));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(template: &str) -> Result<String, String> {
        let list = (".Values.list", "a,b".to_owned());
        filled(template, &[(".Values.x", "y".to_owned()), (".Values.z", String::new()), list])
    }

    #[test]
    fn values_and_conditions_mean_what_they_mean_in_helm() {
        for (template, expected) in [
            ("a: \"{{ .Values.x }}\"\n", "a: \"y\"\n"),
            ("a{{ if ne .Values.x \"y\" }}-{{ .Values.x }}{{ end }}\n", "a\n"),
            ("a{{ if eq .Values.x \"y\" }}-{{ .Values.x }}{{ end }}\n", "a-y\n"),
            ("a\n{{- if eq .Values.x \"y\" }}\nb\n{{- end }}\nc\n", "a\nb\nc\n"),
            ("a\n{{- if eq .Values.x \"n\" }}\nb\n{{- end }}\nc\n", "a\nc\n"),
            ("a {{ .Values.x -}} \n b", "a yb"),
            ("[{{ range .Values.list }}\"{{ . }}\",{{ end }}]", "[\"a\",\"b\",]"),
            ("[{{ range .Values.z }}\"{{ . }}\",{{ end }}]", "[]"),
            ("{{ if eq .Values.x \"n\" }}{{ range .Values.list }}c{{ end }}{{ end }}d", "d"),
            ("{{ if eq .Values.x \"n\" }}{{ if eq .Values.x \"y\" }}b{{ end }}c{{ end }}d", "d"),
        ] {
            assert_eq!(of(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn what_is_not_of_that_language_is_an_error() {
        for (template, expected) in [
            ("a: {{ .Values.none }}", "there is no value `.Values.none`"),
            ("{{ if eq .Values.x \"n\" }}{{ .Values.none }}{{ end }}", "there is no value"),
            ("a: {{ .Values.x", "`{{` without `}}`"),
            ("{{ end }}", "`end` without `if`"),
            ("{{ if eq .Values.x \"y\" }}", "`if` without `end`"),
            ("{{ if eq .Values.x .Values.z }}", "compares with no text"),
            ("{{ range .Values.z }}{{ . }}", "`range` without `end`"),
            ("{{ range .Values.z }}{{ .Values.x }}{{ end }}", "there is only `.`"),
            ("{{ . }}", "there is no value `.`"),
            ("{{ .Values.x | quote }}", "is not understood"),
        ] {
            let error = of(template).unwrap_err();
            assert!(error.contains(expected), "{template}: {error}");
        }
    }
}
