package cniconf

import (
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
)

const testEntry = `{"type": "virt-launcher-net", "mtu": 1400}`

// The entry comes behind the others and goes again, and nothing else of the text changes.
func TestList(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"flannel": {
			"{\"name\": \"cbr0\", \"cniVersion\": \"0.3.1\", \"plugins\": [\n  {\"type\": \"flannel\", \"delegate\": {\"hairpinMode\": true}},\n  {\"type\": \"portmap\", \"capabilities\": {\"portMappings\": true}}]}\n",
			"{\"name\": \"cbr0\", \"cniVersion\": \"0.3.1\", \"plugins\": [\n  {\"type\": \"flannel\", \"delegate\": {\"hairpinMode\": true}},\n  {\"type\": \"portmap\", \"capabilities\": {\"portMappings\": true}},\n  " + testEntry + "]}\n",
		},
		"on one line": {
			`{"plugins":[{"type":"ptp","n":1.0}],"name":"x","cniVersion":"1.0.0","plugins2":[]}`,
			`{"plugins":[{"type":"ptp","n":1.0}, ` + testEntry + `],"name":"x","cniVersion":"1.0.0","plugins2":[]}`,
		},
		"tabs and unknown keys": {
			"{\n\t\"name\": \"x\",\n\t\"//\": \"a comment\",\n\t\"disableCheck\": true,\n\t\"cniVersion\": \"1.1.0\",\n\t\"plugins\": [\n\t\t{\n\t\t\t\"type\": \"calico\"\n\t\t}\n\t]\n}",
			"{\n\t\"name\": \"x\",\n\t\"//\": \"a comment\",\n\t\"disableCheck\": true,\n\t\"cniVersion\": \"1.1.0\",\n\t\"plugins\": [\n\t\t{\n\t\t\t\"type\": \"calico\"\n\t\t},\n\t\t" + testEntry + "\n\t]\n}",
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := parsed(t, c.text)
			got, err := l.with([]byte(testEntry))
			if err != nil || string(got) != c.want {
				t.Fatalf("got\n%s\n%v, want\n%s", got, err, c.want)
			}
			conf, err := libcni.ConfListFromBytes(got)
			if err != nil || conf.Plugins[len(conf.Plugins)-1].Network.Type != Type {
				t.Errorf("libcni reads %+v, %v", conf, err)
			}
			if again, err := parsed(t, c.want).with([]byte(testEntry)); err != nil || string(again) != c.want {
				t.Errorf("the second time it is\n%s\n%v", again, err)
			}
			if back, err := parsed(t, c.want).without(); err != nil || string(back) != c.text {
				t.Errorf("without it is\n%s\n%v, want\n%s", back, err, c.text)
			}
		})
	}
}

// One that is there already, with other options or twice, is replaced where it is, unless
// that is before the plugin that makes the interface.
func TestListHasIt(t *testing.T) {
	const head, a, b = `{"name":"x","cniVersion":"1.0.0","plugins":[`, `{"type":"ptp"}`, `{"type":"portmap"}`
	old := `{"type":"virt-launcher-net"}`
	for name, c := range map[string]struct{ text, with, without string }{
		"in between":  {a + "," + old + "," + b, a + "," + testEntry + "," + b, a + "," + b},
		"first":       {old + " , " + a, a + ", " + testEntry, a},
		"around":      {old + "," + a + "," + old, a + ", " + testEntry, a},
		"twice":       {a + "," + old + "," + b + "," + old, a + "," + testEntry + "," + b, a + "," + b},
		"as it is":    {a + `,{"mtu":1400,"type":"virt-launcher-net"}`, a + `,{"mtu":1400,"type":"virt-launcher-net"}`, a},
		"not at all":  {a, a + ", " + testEntry, a},
		"another key": {a + `,{"type":"other","uses":"virt-launcher-net"}`, a + `,{"type":"other","uses":"virt-launcher-net"}, ` + testEntry, a + `,{"type":"other","uses":"virt-launcher-net"}`},
	} {
		l := parsed(t, head+c.text+"]}")
		if got, err := l.with([]byte(testEntry)); err != nil || string(got) != head+c.with+"]}" {
			t.Errorf("%s: with it is\n%s\n%v, want\n%s", name, got, err, head+c.with+"]}")
		}
		if got, err := l.without(); err != nil || string(got) != head+c.without+"]}" {
			t.Errorf("%s: without it is\n%s\n%v, want\n%s", name, got, err, head+c.without+"]}")
		}
	}
}

func TestDamagedList(t *testing.T) {
	for text, want := range map[string]string{
		``:                           "ends too early",
		`{"name": "x", "plugins": [`: "ends too early",
		`{"name": "x", "plugins": [{"type": "ptp"}]`:     "ends too early",
		`{"name": "x", "plugins": [{"type": "ptp"}]} {}`: "more after the object",
		`[]`:                                        "no JSON object",
		`{"name": "x", "type": "ptp"}`:              "no plugins",
		`{"name": "x", "plugins": []}`:              "no plugins",
		`{"name": "x", "plugins": {}}`:              "want a list",
		`{"name": "x", "plugins": [{}]}`:            "without a type",
		`{"name": "x", "plugins": ["ptp"]}`:         "cannot unmarshal string",
		`{"plugins": [{"type": "ptp"}]}`:            "no name",
		`{"name": 1, "plugins": [{"type": "ptp"}]}`: `"name"`,
		"\xef\xbb\xbf{\"name\": \"x\", \"plugins\": [{\"type\": \"ptp\"}]}": "invalid character",
		`{"name": "x", /* a comment */ "plugins": [{"type": "ptp"}]}`:       "invalid character '/'",
	} {
		if l, err := parseList([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is %+v, %v; want %q", text, l, err, want)
		}
		if _, err := libcni.ConfListFromBytes([]byte(text)); err == nil && !strings.Contains(want, "no plugins") {
			t.Errorf("libcni reads %q", text)
		}
	}
}

func parsed(t *testing.T, text string) list {
	t.Helper()
	l, err := parseList([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return l
}
