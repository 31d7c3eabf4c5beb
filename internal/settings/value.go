package settings

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Value is a flag whose text is parsed into what the library takes. A
// repeatable one is set once for each time it is given.
type Value struct {
	Kind  string
	Text  string // its default, then what was given
	Parse func(string) error
}

// String implements [pflag.Value].
func (v *Value) String() string { return v.Text }

// Type implements [pflag.Value].
func (v *Value) Type() string { return v.Kind }

// Set implements [pflag.Value].
func (v *Value) Set(s string) error {
	v.Text = s
	return v.Parse(s)
}

// Number is for a flag of 1 or more; the text is its default.
func Number(n *int, text string) *Value {
	return &Value{Kind: "int", Text: text, Parse: func(s string) (err error) {
		if *n, err = strconv.Atoi(s); err != nil || *n < 1 {
			return errors.New("want a whole number of 1 or more")
		}
		return nil
	}}
}

// Duration is for a flag of 0 or more, whose default is 0 if none is shown.
func Duration(d *time.Duration, preset time.Duration) *Value {
	v := &Value{Kind: "duration", Parse: func(s string) (err error) {
		if *d, err = time.ParseDuration(s); err != nil || *d < 0 {
			return errors.New("want a duration of 0 or more, such as 30s or 1m30s")
		}
		return nil
	}}
	if *d = preset; preset != 0 {
		v.Text = preset.String()
	}
	return v
}

// Choice is for a flag that takes one of these words, and is told which; preset is
// its default.
func Choice(preset string, take func(string), words ...string) *Value {
	return &Value{Kind: strings.Join(words, "|"), Text: preset, Parse: func(s string) error {
		if !slices.Contains(words, s) {
			return errors.New("want " + strings.Join(words, " or "))
		}
		take(s)
		return nil
	}}
}

// Repeated is for a flag that adds to a list. What was in it before is replaced.
func Repeated[T any](list *[]T, kind string, parse func(string) (T, error)) *Value {
	var given []T
	return &Value{Kind: kind, Parse: func(s string) error {
		item, err := parse(s)
		if err == nil {
			given = append(given, item)
			*list = given
		}
		return err
	}}
}

// Address parses an IP address.
func Address(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		err = errors.New("want an IP address")
	}
	return a, err
}
