package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// However often the plugin tells of an attachment that can't be read, it is read again
// once in each readAgain.
func TestUnreadableIsReadOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	damage := func(container string) {
		text := fmt.Sprintf(`{"containerID": %q}`, container)
		if err := os.WriteFile(filepath.Join(dir, "c", "eth0.attachment"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		var log podtest.Buffer
		a := New(Options{StateDir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
		ctx, cancel := context.WithCancel(t.Context())
		damage("first")
		for range 4 {
			if err := a.attach(ctx, "c", "eth0"); err == nil {
				t.Fatal("it is served")
			}
			time.Sleep(time.Second)
		}
		time.Sleep(readAgain - 4*time.Second + time.Millisecond) // it has been read again once
		damage("second")
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if strings.Contains(log.String(), "second") {
			t.Errorf("it is read again and again:\n%s", &log)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if !strings.Contains(log.String(), "second") {
			t.Errorf("it is not read again:\n%s", &log)
		}
		cancel()
		time.Sleep(readAgain)
	})
}
