package netboot

import (
	"strings"
	"testing"
)

func TestParseFile(t *testing.T) {
	for text, want := range map[string]File{
		"pxelinux.0":               {Name: "pxelinux.0"},
		"efi-x64=ipxe.efi":         {"efi-x64", "ipxe.efi"},
		"ipxe=http://h/a?b=c":      {"ipxe", "http://h/a?b=c"},
		"http://h/a?b=c":           {Name: "http://h/a?b=c"},
		"30=rv128.efi":             {"30", "rv128.efi"},
		"/a/b=c":                   {Name: "/a/b=c"},
		"=":                        {},
		"=a":                       {},
		"":                         {},
		"efi-x65=a":                {},
		"65536=a":                  {},
		"bios=":                    {},
		"bios=a\n":                 {},
		strings.Repeat("a", 255+1): {},
	} {
		got, err := ParseFile(text)
		if got != want || (err == nil) != (want != File{}) {
			t.Errorf("%q: got %+v and error %v, want %+v", text, got, err, want)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		name  string
		files Files
		want  string // in the error
	}{
		{"none", nil, ""},
		{"several", Files{{"bios", "a"}, {"ipxe", "b"}, {"41", "c"}, {"", "d"}}, ""},
		{"unknown firmware", Files{{"efi", "a"}}, "unknown firmware"},
		{"no name", Files{{"bios", ""}}, "no name"},
		{"a long name", Files{{"", strings.Repeat("a", 256)}}, "longer"},
		{"NUL", Files{{"", "a\x00b"}}, "printable"},
		{"two of one", Files{{"bios", "a"}, {"bios", "b"}}, "another file is for the same firmware"},
		{"two for the rest", Files{{"", "a"}, {"", "b"}}, "another file is for the same firmware"},
		{"two faults", Files{{"bios", ""}, {"efi", "a"}}, "no name\n"},
	} {
		err := c.files.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestFor(t *testing.T) {
	files := Files{{"", "rest"}, {"bios", "undionly.kpxe"}, {"efi-x64", "x64.efi"}, {"30", "rv128.efi"}, {"ipxe", "boot.ipxe"}}
	for _, c := range []struct {
		name   string
		types  []byte
		isIPXE bool
		want   string
	}{
		{"nothing", nil, false, "rest"},
		{"BIOS", []byte{0, 0}, false, "undionly.kpxe"},
		{"x64", []byte{0, 7}, false, "x64.efi"},
		{"x64 by the RFC's number", []byte{0, 9}, false, "x64.efi"},
		{"its second choice", []byte{0, 11, 0, 7}, false, "x64.efi"},
		{"its first choice of two", []byte{0, 7, 0, 0}, false, "x64.efi"},
		{"by number", []byte{0, 30}, false, "rv128.efi"},
		{"none of its own", []byte{0, 11}, false, "rest"},
		{"half a type", []byte{0}, false, "rest"},
		{"iPXE", []byte{0, 7}, true, "boot.ipxe"},
	} {
		if got := files.For(c.types, c.isIPXE); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	own := Files{{"bios", "undionly.kpxe"}}
	if got := own.For([]byte{0, 0}, true); got != "undionly.kpxe" {
		t.Errorf("iPXE without a file of its own gets %q", got)
	}
	if got := own.For([]byte{0, 7}, false); got != "" {
		t.Errorf("firmware without a file gets %q", got)
	}
}
