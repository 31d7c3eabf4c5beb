package podtest

import (
	"os"
	"testing"
)

// Datapath names what tests have pods prepared by that are not about one datapath:
// what VLN_TEST_DATAPATH says, else the program's default. A test fails if there is no
// datapath of that name.
func Datapath(t testing.TB) string {
	t.Helper()
	name := os.Getenv("VLN_TEST_DATAPATH")
	switch name {
	case "":
		return SwitchPath
	case SwitchPath, "redirect":
		t.Logf("by the datapath %s", name)
	default:
		t.Fatalf("VLN_TEST_DATAPATH is %q, which is no datapath: want %s or redirect", name, SwitchPath)
	}
	return name
}
