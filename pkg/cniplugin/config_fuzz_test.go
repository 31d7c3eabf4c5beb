package cniplugin

import (
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/internal/settings"
)

// Whatever a configuration and a pod's annotation say, it is refused or makes options that
// the agent can read again.
func FuzzConfig(f *testing.F) {
	const head = `{"cniVersion": "1.1.0", "name": "net", "type": "virt-launcher-net", `
	f.Add([]byte(head+`"select": "all", "mtu": 1400, "dns": {"nameservers": ["192.0.2.1"]}}`), `{"podPorts": "8080", "leaseTime": "1h"}`)
	f.Add([]byte(head+`"runtimeConfig": {"io.kubernetes.cri.pod-annotations": {"virt-launcher-net/vm": "true"}, "dns": {"servers": ["::1"]}}}`), ``)
	f.Add([]byte(head+`"prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/x"}]}, "allowedOptions": ["mac"]}`), `{"mac": "52:54:00:00:00:01"}`)
	f.Fuzz(func(t *testing.T, conf []byte, asked string) {
		c, err := readConfig(conf)
		if err != nil {
			return
		}
		if _, _, err := c.selected(); err != nil {
			return
		}
		options, err := call{CmdArgs: &skel.CmdArgs{IfName: "eth0"}, conf: c, log: slog.New(slog.DiscardHandler)}.optionsFor(attachment.Pod{Namespace: "a", Name: "vm"}, asked, nil)
		if err != nil {
			return
		}
		b, err := json.Marshal(options)
		if err != nil {
			t.Fatalf("options can't be written: %v", err)
		}
		var again map[string]json.RawMessage
		if err := json.Unmarshal(b, &again); err != nil {
			t.Fatalf("options can't be read: %v", err)
		}
		if err := new(settings.Options).Set(again); err != nil {
			t.Errorf("options are wrong after all: %v", err)
		}
	})
}
