package maxprocs_test

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"

	_ "github.com/virt-launcher-net/virt-launcher-net/internal/maxprocs"
)

// There is one processor, unless the environment says another number.
func TestOne(t *testing.T) {
	const child = "VLN_TEST_PROCS"
	if want := os.Getenv(child); want != "" {
		if got := strconv.Itoa(runtime.GOMAXPROCS(0)); got != want {
			t.Errorf("%s processors, want %s", got, want)
		}
		return
	}
	for want, env := range map[string]string{"1": "", "3": "GOMAXPROCS=3"} {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run", t.Name())
		cmd.Env = []string{child + "=" + want, env}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("with %q: %v\n%s", env, err, out)
		}
	}
}
