package engine

import (
	"os"
	"strings"
	"testing"
)

// What a shell or an SELinux policy takes for something else is no label.
func TestCheckLabel(t *testing.T) {
	for label, ok := range map[string]bool{
		"": true, "system_u:system_r:container_t": true, "system_u:system_r:container_t:s0": true, "u:r:t:s0-s0:c0.c1023": true, "u:r:t:s0:c1,c2": true,
		"container_t": false, "u:r:t:s0 x": false, "u:r:t;reboot": false, "-u:r:t": false, "u:r:t\n": false, "u:r:t:": false,
	} {
		if err := CheckLabel(label); (err == nil) != ok {
			t.Errorf("%q: %v", label, err)
		}
	}
}

// A tap with a label is made in words of runcon(1), and refused where SELinux is off.
func TestLabelledTap(t *testing.T) {
	o := AddTap{tap: Tap{Name: "tap0", Label: "u:r:t:s0"}}
	if text := o.String(); !strings.HasPrefix(text, "runcon u:r:t:s0 ip tuntap add dev tap0 mode tap vnet_hdr\n") {
		t.Errorf("it says\n%s", text)
	}
	if _, err := os.Stat(selinuxDir + "/enforce"); err == nil {
		t.Skip("SELinux is on")
	}
	if err := canLabel(); err == nil || !strings.Contains(err.Error(), "SELinux is off") {
		t.Errorf("got %v", err)
	}
}

// The program that runs itself says by its exit code why it made no tap.
func TestMakeTapFails(t *testing.T) {
	for _, args := range [][]string{nil, {"tap0"}, {"tap0", "x"}, {"a-name-too-long-by-far", "2"}} {
		if code := MakeTap(args); code == 0 {
			t.Errorf("%q: exit code 0", args)
		}
	}
}
