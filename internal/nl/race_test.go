package nl

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sync/errgroup"
)

// What a process reads first may be read by several goroutines at once, as for many
// pods. It needs -race to show anything, and a process that has read nothing yet.
func TestFirstReadsAtOnce(t *testing.T) {
	if os.Getenv("VLN_FIRST_READS") == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFirstReadsAtOnce$", "-test.count=1")
		cmd.Env = append(os.Environ(), "VLN_FIRST_READS=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v:\n%s", err, out)
		}
		return
	}
	var readers errgroup.Group
	for range 8 {
		readers.Go(func() error {
			conn, err := Open()
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Links()
			return err
		})
	}
	if err := readers.Wait(); err != nil {
		t.Error(err)
	}
}
