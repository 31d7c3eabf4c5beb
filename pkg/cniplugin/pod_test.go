package cniplugin

import (
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
)

// A pod's host has the pod's name, as kubelet shortens it.
func TestHostname(t *testing.T) {
	for pod, want := range map[string]string{
		"vm-0": "vm-0", "": "", "Web.1": "web.1", "a/b": "", "x\"": "", "-x": "", "x_y": "", "a..b": "",
		strings.Repeat("a", 62) + "-b":  strings.Repeat("a", 62),
		strings.Repeat("a", 61) + ".-b": strings.Repeat("a", 61),
		strings.Repeat("a", 253):        strings.Repeat("a", 63),
	} {
		if got := hostname(pod); got != want {
			t.Errorf("the host of %q is called %q, want %q", pod, got, want)
		}
	}
}

// What a runtime says of a pod is taken, whatever else it says.
func TestPodOf(t *testing.T) {
	const args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=vm;;x;y=a=b;K8S_POD_UID=u;K8S_POD_INFRA_CONTAINER_ID=c"
	if got, want := podOf(args), (attachment.Pod{Namespace: "ns", Name: "vm", UID: "u"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := podOf(""); got != (attachment.Pod{}) {
		t.Errorf("of nothing: %+v", got)
	}
}
