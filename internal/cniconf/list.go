package cniconf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
)

// list is a network configuration list: its text, and where in it the plugins are. It is
// edited as a text, so that all that is another's stays as it is, to the last space.
type list struct {
	text    []byte
	name    string
	version string
	plugins []plugin
}

// plugin is an object of the list, from start to end of the text.
type plugin struct {
	start, end int
	kind       string // its type
}

// parseList reads the text of a .conflist.
func parseList(text []byte) (list, error) {
	l := list{text: text}
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return l, notList(err, "it is no JSON object")
	}
	found := false
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return l, notList(err, "")
		}
		switch key {
		case "name":
			err = d.Decode(&l.name)
		case "cniVersion":
			err = d.Decode(&l.version)
		case "plugins":
			l.plugins, err = parsePlugins(d)
			found = true
		default:
			err = d.Decode(new(json.RawMessage))
		}
		if err != nil {
			return l, notList(fmt.Errorf("%q: %w", key, err), "")
		}
	}
	_, err := d.Token() // the object's end
	if err == nil {
		if _, err = d.Token(); err == nil {
			err = errors.New("there is more after the object")
		} else if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	switch {
	case err != nil:
		return l, notList(err, "")
	case !found || len(l.plugins) == 0:
		return l, errors.New("it has no plugins")
	case l.name == "":
		return l, errors.New("it has no name")
	}
	return l, nil
}

func notList(err error, otherwise string) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the text ends too early")
	}
	if err == nil {
		err = errors.New(otherwise)
	}
	return fmt.Errorf("parse JSON: %w", err)
}

func parsePlugins(d *json.Decoder) ([]plugin, error) {
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, errors.Join(err, errors.New("want a list"))
	}
	var all []plugin
	for d.More() {
		var text json.RawMessage
		if err := d.Decode(&text); err != nil {
			return nil, err
		}
		end := int(d.InputOffset())
		kind, err := typeOf(text)
		if err != nil {
			return nil, err
		}
		all = append(all, plugin{end - len(text), end, kind})
	}
	_, err := d.Token()
	return all, err
}

// typeOf is the type of a plugin's configuration.
func typeOf(text []byte) (string, error) {
	var conf struct{ Type string }
	if err := json.Unmarshal(text, &conf); err != nil {
		return "", err
	}
	if conf.Type == "" {
		return "", errors.New("a plugin without a type")
	}
	return conf.Type, nil
}

// with is the text of a list that has another plugin with the entry as the last one, or in
// the place of an older one that is behind another.
func (l list) with(entry []byte) ([]byte, error) {
	for l.count() > 1 {
		var err error
		if l, err = l.withoutLast(); err != nil {
			return nil, err
		}
	}
	i := slices.IndexFunc(l.plugins, isOurs)
	if i == 0 { // there is no interface before it
		var err error
		if l, err = l.withoutLast(); err != nil {
			return nil, err
		}
		i = -1
	}
	if i < 0 {
		last := l.plugins[len(l.plugins)-1]
		return splice(l.text, last.end, last.end, ","+l.gapBefore(last)+string(entry)), nil
	}
	p := l.plugins[i]
	if sameJSON(l.text[p.start:p.end], entry) {
		return l.text, nil
	}
	return splice(l.text, p.start, p.end, string(entry)), nil
}

// without is the text without our entry, beside others.
func (l list) without() ([]byte, error) {
	for l.count() > 0 {
		var err error
		if l, err = l.withoutLast(); err != nil {
			return nil, err
		}
	}
	return l.text, nil
}

func isOurs(p plugin) bool { return p.kind == Type }

// isOursAlone tells whether the list has no other plugin: its owner wrote it so, as for
// Multus, and no installer.
func (l list) isOursAlone() bool { return l.count() == len(l.plugins) }

func (l list) count() int {
	n := 0
	for _, p := range l.plugins {
		if isOurs(p) {
			n++
		}
	}
	return n
}

// withoutLast is the list without the last of our entries, beside others.
func (l list) withoutLast() (list, error) {
	i := len(l.plugins) - 1
	for !isOurs(l.plugins[i]) {
		i--
	}
	if i > 0 {
		return parseList(splice(l.text, l.plugins[i-1].end, l.plugins[i].end, ""))
	}
	return parseList(splice(l.text, l.plugins[0].start, l.plugins[1].start, ""))
}

// gapBefore is what a plugin that follows p begins with, so that it stands below p if p
// stands on a line of its own.
func (l list) gapBefore(p plugin) string {
	line := l.text[bytes.LastIndexByte(l.text[:p.start], '\n')+1 : p.start]
	if len(bytes.TrimSpace(line)) == 0 && len(line) < p.start {
		return "\n" + string(line)
	}
	return " "
}

// splice replaces a part of a text.
func splice(text []byte, start, end int, by string) []byte {
	return slices.Concat(text[:start], []byte(by), text[end:])
}

func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

// listOf is a list made of the text of a .conf, a single plugin, and our entry. It is the
// same network: its name is where IPAM keeps its addresses.
func listOf(conf, entry []byte) ([]byte, error) {
	var c struct{ Name, CNIVersion string }
	if err := json.Unmarshal(conf, &c); err != nil {
		return nil, fmt.Errorf("parse JSON: %w", err)
	}
	if c.Name == "" {
		return nil, errors.New("it has no name")
	}
	name, err := json.Marshal(c.Name)
	if err != nil {
		return nil, err
	}
	version, err := json.Marshal(c.CNIVersion)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "{\n\"name\": %s,\n\"cniVersion\": %s,\n\"plugins\": [\n%s,\n%s\n]\n}\n",
		name, version, strings.TrimSpace(string(conf)), entry), nil
}
