//! The part of Helm's template language that the chart uses: `{{ .Values.NAME }}`, `{{ .Release.Namespace }}`,
//! `{{ if eq .Values.NAME "text" }}` or `ne`, `{{ end }}`, and `-` inside the braces, which takes away blanks and
//! line ends outside of them. Everything else is an error, so that nothing can mean one thing there and another here.

/// What values are called, and what they are.
pub(crate) type Named<'v> = &'v [(&'static str, String)];

/// A template with its values.
///
/// # Errors
/// What it asks for that does not exist, or a value that cannot stand between quotes.
pub(crate) fn filled(template: &str, values: Named<'_>) -> Result<String, String> {
    let mut text = String::with_capacity(template.len());
    // Whether each `if` that is open holds.
    let mut open: Vec<bool> = Vec::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (inside, behind) = after.split_once("}}").ok_or("`{{` without `}}`")?;
        let (inside, trims_before) = without(inside.strip_prefix('-'), inside);
        let (inside, trims_behind) = without(inside.strip_suffix('-'), inside);
        if holds(&open) {
            text.push_str(if trims_before { before.trim_end() } else { before });
        }
        rest = if trims_behind { behind.trim_start() } else { behind };
        match inside.split_whitespace().collect::<Vec<_>>()[..] {
            ["end"] => {
                open.pop().ok_or("`end` without `if`")?;
            }
            ["if", how @ ("eq" | "ne"), name, against] => {
                let against = against.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
                let against = against.ok_or_else(|| format!("`{inside}` compares with no text"))?;
                open.push((value(values, name)? == against) == (how == "eq"));
            }
            [name] if holds(&open) => text.push_str(value(values, name)?),
            [name] => drop(value(values, name)?),
            _ => return Err(format!("`{}` is not understood", inside.trim())),
        }
    }
    if !open.is_empty() {
        return Err("`if` without `end`".to_owned());
    }
    text.push_str(rest);
    Ok(text)
}

fn holds(open: &[bool]) -> bool {
    open.iter().all(|holds| *holds)
}

fn without<'t>(stripped: Option<&'t str>, whole: &'t str) -> (&'t str, bool) {
    stripped.map_or((whole, false), |stripped| (stripped, true))
}

fn value<'v>(values: Named<'v>, name: &str) -> Result<&'v str, String> {
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
        filled(template, &[(".Values.x", "y".to_owned()), (".Values.z", String::new())])
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
            ("{{ .Values.x | quote }}", "is not understood"),
        ] {
            let error = of(template).unwrap_err();
            assert!(error.contains(expected), "{template}: {error}");
        }
    }
}
