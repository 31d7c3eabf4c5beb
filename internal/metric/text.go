package metric

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// ContentType is that of Prometheus' text format.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// In the value of a label; an interface's name may be any bytes.
var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// Write writes the metrics that read tells of, in Prometheus' text format and in the
// order of descs.
func Write(w io.Writer, descs []*Desc, read func(Each)) {
	lines := map[*Desc][]string{}
	read(func(d *Desc, value float64, labels ...string) {
		name, pairs := d.Name, make([]string, len(d.Labels))
		for i, label := range d.Labels {
			pairs[i] = label + `="` + escape.Replace(strings.ToValidUTF8(labels[i], "�")) + `"`
		}
		if len(pairs) > 0 {
			name += "{" + strings.Join(pairs, ",") + "}"
		}
		lines[d] = append(lines[d], name+" "+strconv.FormatFloat(value, 'g', -1, 64)+"\n")
	})
	for _, d := range descs {
		if len(lines[d]) == 0 {
			continue
		}
		kind := "gauge"
		if d.Counter {
			kind = "counter"
		}
		slices.Sort(lines[d])
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %[1]s %[3]s\n%[4]s", d.Name, d.Help, kind, strings.Join(lines[d], ""))
	}
}
