package main

import (
	"encoding/json"
	"io"
)

// jsonVersion is the version of all JSON that the command prints. It grows when a field changes its
// meaning or goes away, not when one is added.
const jsonVersion = 1

// writeJSON prints JSON for people and programs, indented.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(jsonWriter{w})
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// writeJSONLine prints JSON on one line, for a stream of it.
func writeJSONLine(w io.Writer, v any) error {
	e := json.NewEncoder(jsonWriter{w})
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
