package statedir

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode"
)

// Unmarshal decodes JSON that may be anybody's. What can't be printed, such as what
// a terminal would take for a command, becomes a question mark in all its strings.
func Unmarshal(b []byte, to any) error {
	var v any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return err
	}
	b, err := json.Marshal(printable(v))
	if err != nil {
		return err
	}
	return json.Unmarshal(b, to)
}

func printable(v any) any {
	switch v := v.(type) {
	case string:
		return Printable(v)
	case []any:
		for i := range v {
			v[i] = printable(v[i])
		}
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, value := range v {
			out[Printable(key)] = printable(value)
		}
		return out
	}
	return v
}

// Printable is text with a question mark for each character that can't be printed.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
