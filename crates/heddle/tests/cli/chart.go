// Fills the chart's templates with Go's own template engine, of which Helm's is made: chart.go CHART NAMESPACE [KEY=VALUE]…
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

func main() {
	chart, namespace := os.Args[1], os.Args[2]
	file, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	check(err)
	values := map[string]any{}
	for _, line := range append(strings.Split(string(file), "\n"), os.Args[3:]...) {
		separator := ": "
		if !strings.Contains(line, separator) {
			separator = "="
		}
		if key, value, found := strings.Cut(line, separator); found && !strings.HasPrefix(line, "#") {
			values[key] = read(value)
		}
	}
	data := map[string]any{"Values": values, "Release": map[string]string{"Namespace": namespace}}
	files, err := filepath.Glob(filepath.Join(chart, "templates", "*.yaml"))
	check(err)
	for _, name := range files {
		text, err := os.ReadFile(name)
		check(err)
		parsed, err := template.New(name).Option("missingkey=error").Parse(string(text))
		check(err)
		check(parsed.Execute(os.Stdout, data))
		fmt.Println("---")
	}
}

// A list in brackets, or a text.
func read(value string) any {
	inner, opened := strings.CutPrefix(value, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	if !opened || !closed {
		return value
	}
	return strings.FieldsFunc(inner, func(c rune) bool { return c == ',' || c == ' ' })
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
