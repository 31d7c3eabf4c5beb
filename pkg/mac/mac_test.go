package mac

import (
	"encoding/json"
	"testing"
)

func TestJSON(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`"02:00:00:00:00:07"`, `""`} {
		var a Addr
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			t.Fatal(err)
		}
		if again, err := json.Marshal(a); err != nil || string(again) != text {
			t.Errorf("%s becomes %s, %v", text, again, err)
		}
	}
	for _, text := range []string{`"02:00:00:00:00"`, `"02:00:00:00:00:00:00:07"`, `"x"`, `7`} {
		var a Addr
		if err := json.Unmarshal([]byte(text), &a); err == nil {
			t.Errorf("%s is %s", text, a)
		}
	}
}

func TestOf(t *testing.T) {
	t.Parallel()
	if a := Of([]byte{2, 0, 0, 0, 0, 7}); a != (Addr{2, 0, 0, 0, 0, 7}) || a.IsGroup() || a.IsZero() {
		t.Errorf("got %s", a)
	}
	if a := Of(make([]byte, 8)); !a.IsZero() || a.HardwareAddr() != nil {
		t.Errorf("eight bytes are %s", a)
	}
	if a := (Addr{1}); !a.IsGroup() {
		t.Errorf("%s is no group", a)
	}
}

func TestLinkLocal(t *testing.T) {
	t.Parallel()
	if got := (Addr{2, 0, 0, 0, 0, 7}).LinkLocal().String(); got != "fe80::ff:fe00:7" {
		t.Errorf("got %s", got)
	}
}
