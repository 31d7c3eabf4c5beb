package guest

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestPorts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                     "",
		" ":                                    "",
		"8080":                                 "8080",
		"8080,9000-9010/tcp,53/udp":            "53/udp,8080,9000-9010/tcp",
		"1-65535":                              "1-65535",
		"80/tcp,80/udp":                        "80",
		" 80 , 443/tcp ":                       "80,443/tcp",
		"10-20/tcp,15-30/tcp,31/tcp,40/tcp":    "10-31/tcp,40/tcp",
		"65535/udp,65534/udp,1/udp":            "1/udp,65534-65535/udp",
		"7,7,7/tcp":                            "7",
		"1-10,5/udp":                           "1-10",
		"9000-9010/tcp,9000-9010/udp,9011/udp": "9000-9010/tcp,9000-9011/udp",
	} {
		p, err := ParsePorts(text)
		if err != nil || p.String() != want {
			t.Errorf("%q is %q, %v, want %q", text, p, err, want)
		}
		if err := p.Validate(); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		var again Ports
		b, err := json.Marshal(p)
		if err == nil {
			err = json.Unmarshal(b, &again)
		}
		if err != nil || !again.Equal(p) || p.IsZero() != (want == "") {
			t.Errorf("%q as JSON is %s and then %q, %v", text, b, again, err)
		}
	}
	for _, text := range []string{"0", "65536", "-1", "9010-9000", "80-", "-80", "x", "80/sctp", "80/", "/tcp", "80,,81", "80;81", "0-10", "80/tcp/udp", "+80", "1e3", "80 81"} {
		_, err := ParsePorts("22," + text + ",23")
		if err == nil || !strings.Contains(err.Error(), "is not a port: write 1 to 65535") {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, ranges := range [][]PortRange{{{90, 80}}, {{0, 0}}, {{90, 90}, {80, 80}}, {{80, 90}, {85, 95}}, {{80, 80}, {81, 81}}} {
		p := Ports{UDP: ranges}
		if err := p.Validate(); err == nil {
			t.Errorf("%+v is valid", p)
		}
	}
	if _, err := ParsePorts("22,80/sctp"); !strings.HasPrefix(err.Error(), `"80/sctp" is`) {
		t.Error(err)
	}
}
