package metric

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Prometheus reads a label back whatever the kernel let an interface be called.
func TestWriteOddLabel(t *testing.T) {
	d := counter("frames_total", "Frames.", "interface", "reason")
	var b strings.Builder
	Write(&b, []*Desc{ready, d}, func(each Each) { each(d, 1e9, "a\"\\\n\xff", "b") })
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(b.String()))
	if err != nil {
		t.Fatalf("%v in\n%s", err, b.String())
	}
	if len(families) != 1 {
		t.Errorf("a metric without a value is there:\n%s", b.String())
	}
	got := families[d.Name].GetMetric()[0]
	if label := got.GetLabel()[0].GetValue(); label != "a\"\\\n�" || got.GetCounter().GetValue() != 1e9 {
		t.Errorf("the label is %q in %v", label, got)
	}
}

// What the kernel tells of this process is read.
func TestReadProcess(t *testing.T) {
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	values := map[*Desc]float64{}
	ReadProcess("v1", time.Now(), func(d *Desc, value float64, _ ...string) { values[d] = value })
	for _, d := range OfProcess {
		if values[d] <= 0 {
			t.Errorf("%s is %v", d.Name, values[d])
		}
	}
	before := values[openFiles]
	file.Close()
	ReadProcess("v1", time.Now(), func(d *Desc, value float64, _ ...string) { values[d] = value })
	if values[openFiles] != before-1 || values[residentMemory] < 1<<20 || values[residentMemory] > 1<<30 {
		t.Errorf("open files: %v, before %v; resident: %v", values[openFiles], before, values[residentMemory])
	}
}
