package prestart

import (
	"bytes"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// A link that goes down and up twice a second for five minutes fills no log, which says how
// often it did, and in the end what is so.
func TestFlappingLinkIsSummedUp(t *testing.T) {
	t.Parallel()
	down := []prepare.Difference{{Interface: "eth0", What: "eth0", Is: "down", Want: "up"}}
	for name, last := range map[string][]prepare.Difference{"not as planned\"": down, "as planned again": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				w := &watch{reported: newReport(), log: slog.New(slog.NewTextHandler(&log, nil))}
				look := func(found []prepare.Difference) {
					w.mu.Lock()
					w.found = found
					lines := w.report()
					w.mu.Unlock()
					for _, line := range lines {
						line()
					}
				}
				for range 5 * 60 * 2 {
					look(down)
					time.Sleep(250 * time.Millisecond)
					look(nil)
					time.Sleep(250 * time.Millisecond)
				}
				look(down)
				look(last)
				time.Sleep(2 * reportPause)
				synctest.Wait()
				lines := strings.Split(strings.TrimSpace(log.String()), "\n")
				if len(lines) > 50 || strings.Count(log.String(), "again and again") < 4 {
					t.Errorf("it logs %d lines:\n%s", len(lines), lines[:20])
				}
				// A change at the instant at which it sums up comes before or after that.
				if !regexp.MustCompile(`times=2(39|40|41) within=1m0s asPlanned=`).MatchString(log.String()) {
					t.Errorf("it does not say how often:\n%s", lines[:20])
				}
				if end := strings.Join(lines[reportsAtOnce:], "\n"); !strings.Contains(end[max(0, strings.LastIndex(end, "as planned")-20):], name) {
					t.Errorf("in the end it says %s", lines[len(lines)-3:])
				}
				logged := len(log.String())
				look(down)
				look(nil)
				if !strings.Contains(log.String()[logged:], "as planned") {
					t.Error("after a while a change is not told at once")
				}
			})
		})
	}
}
