package engine

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestLinkName(t *testing.T) {
	for in, want := range map[string]string{
		"eth0":        "tap-eth0",
		"eleven-char": "tap-eleven-char",
	} {
		if got := LinkName("tap-", in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	if name := LinkName("tap-", "€€€€€"); !utf8.ValidString(name) || !strings.HasPrefix(name, "tap-€") {
		t.Errorf("a character is cut in two: %q", name)
	}
	a, b := LinkName("tap-", "twelve-chars"), LinkName("tap-", "twelve-chart")
	if a == b || len(a) != 15 || !strings.HasPrefix(a, "tap-twelv") {
		t.Errorf("long names became %s and %s", a, b)
	}
}
