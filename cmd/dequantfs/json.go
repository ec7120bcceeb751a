package main

import (
	"encoding/json"
	"io"
)

// jsonVersion is the version of all JSON that the command prints. It grows when a field is removed
// or changes its meaning, but not when one is added.
const jsonVersion = 1

// writeJSON prints indented JSON.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(jsonWriter{w})
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// writeJSONLine prints JSON on one line, for streams.
func writeJSONLine(w io.Writer, v any) error {
	e := json.NewEncoder(jsonWriter{w})
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
