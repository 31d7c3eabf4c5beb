package attachment

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What is written is read, the first attached first, and gone when it is removed.
func TestAttachments(t *testing.T) {
	base := filepath.Join(t.TempDir(), "base")
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	eth0 := Attachment{
		ContainerID: "c1", Interface: "eth0", Netns: "/run/netns/x", Since: since, Pod: Pod{"ns", "vm", "u"},
		Options: map[string]json.RawMessage{"mtu": []byte("1400")},
	}
	net1 := eth0
	net1.Interface, net1.Since = "net1", since.Add(-time.Second)
	for _, a := range []Attachment{eth0, net1} {
		if err := a.Write(base); err != nil {
			t.Fatal(err)
		}
	}
	got, err := OfContainer(base, "c1")
	if err != nil || len(got) != 2 || got[0].Interface != "net1" || got[1].Pod != eth0.Pod || !got[1].Since.Equal(since) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if o, err := got[1].Settings(); err != nil || o.Network.MTU != 1400 {
		t.Errorf("settings: %+v, %v", o, err)
	}
	// An interface's name may begin with a dot, as what a killed process has left of a file does.
	odd := eth0
	odd.Interface = ".eth0"
	if err := errors.Join(odd.Write(base), os.WriteFile(pathOf(base, "c1", ".eth0")+"123", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if got, err := OfContainer(base, "c1"); err != nil || len(got) != 3 {
		t.Errorf("with .eth0 there are %+v, %v", got, err)
	}
	if ids, err := Containers(base); err != nil || len(ids) != 1 || ids[0] != "c1" {
		t.Errorf("containers: %q, %v", ids, err)
	}
	for range 2 { // a second time it is gone already
		if err := Remove(base, "c1", "eth0"); err != nil {
			t.Error(err)
		}
	}
	if _, err := Read(base, "c1", "eth0"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
	if got, err := OfContainer(base, "nobody"); err != nil || len(got) != 0 {
		t.Errorf("of nobody: %v, %v", got, err)
	}
}

// A file that is damaged, or another's, is named, and the others are read.
func TestDamagedAttachment(t *testing.T) {
	base := t.TempDir()
	a := Attachment{ContainerID: "c1", Interface: "eth0", Netns: "/run/netns/x"}
	if err := a.Write(base); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"net1": "{", "net2": `{"containerID":"c2","interface":"net2","netns":"/x"}`} {
		if err := os.WriteFile(pathOf(base, "c1", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := OfContainer(base, "c1")
	if len(got) != 1 || err == nil || !strings.Contains(err.Error(), "net1.attachment") || !strings.Contains(err.Error(), `container "c2"`) {
		t.Errorf("got %v, %v", got, err)
	}
}

// What could not be read again is not written. JSON has six bytes for each <.
func TestLargeAttachment(t *testing.T) {
	base := t.TempDir()
	a := Attachment{ContainerID: "c1", Interface: "eth0", Netns: "/run/netns/x"}
	for size, fits := range map[int]bool{maxFile / 7: true, maxFile / 6: false} {
		a.Options = map[string]json.RawMessage{"hostname": []byte(`"` + strings.Repeat("<", size) + `"`)}
		err := a.Write(base)
		if fits == (err != nil) || !fits && !strings.Contains(err.Error(), "at most 1048576") {
			t.Errorf("%d bytes: %v", size, err)
		}
		if _, err := OfContainer(base, "c1"); err != nil {
			t.Error(err)
		}
	}
}

// An alias that a plugin of an older version took costs a NIC that is prepared none of its
// other options.
func TestSettingsOfOlderVersion(t *testing.T) {
	for _, alias := range []string{`"0.0.0.1"`, `["169.254.100.2","169.254.100.6"]`} {
		o, err := Attachment{Options: map[string]json.RawMessage{"mtu": []byte("1400"), "vmAlias": []byte(alias)}}.Settings()
		if err != nil || o.Network.MTU != 1400 || o.Network.VMAlias.IsValid() || o.Validate() != nil {
			t.Errorf("%s: %+v, %v", alias, o, err)
		}
	}
	if _, err := (Attachment{Options: map[string]json.RawMessage{"mtu": []byte("-1")}}).Settings(); err == nil || !strings.Contains(err.Error(), "mtu") {
		t.Errorf("a wrong MTU: %v", err)
	}
}
