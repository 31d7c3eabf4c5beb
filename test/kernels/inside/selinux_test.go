package inside

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// A VM whose process has another SELinux label than the program may open the tap that was
// made with its label, and no other. See ../selinux.cil for the policy.
func TestSELinux(t *testing.T) {
	const label = "u:r:vm_t"
	enforce(t)
	eachDatapath(t, func(t *testing.T, datapath string) {
		pod := podtest.NewPod(t, podtest.Flannel)
		v := newVM(t, pod, datapath)
		for name, options := range map[string][]string{"no label": nil, "the VM's label": {"--selinux-context", label}} {
			v.Run(t, "prepare", options...)
			// Of ip(8)'s commands the one that opens a tap that is there.
			out, err := pod.Output(t.Context(), "sh", "-c", "printf "+label+" >/proc/self/attr/exec && exec ip tuntap del dev tap-eth0 mode tap")
			if options == nil && (err == nil || !strings.Contains(err.Error(), "Permission denied")) || options != nil && err != nil {
				t.Errorf("a tap with %s is opened: %v, %s", name, err, out)
			}
			v.Run(t, "restore")
			v.unchanged(t, "restore")
		}
		_, err := v.Output(t, "prepare", "--selinux-context", "u:r:no_such_t")
		if err == nil || !strings.Contains(err.Error(), "the node's policy has to have that context") {
			t.Errorf("with a context that the policy lacks: %v", err)
		}
		v.unchanged(t, "prepare fails")
	})
}

// enforce loads the policy. In a machine without SELinux the test skips.
func enforce(t *testing.T) {
	t.Helper()
	if os.Getenv("VLN_TEST_KERNELS") != "inside" {
		t.Skip("runs in a virtual machine: run make test-kernels")
	}
	const dir = "/sys/fs/selinux"
	if _, err := os.Stat(dir); err != nil {
		t.Skip("the machine has no SELinux")
	}
	policy, err := os.ReadFile("/selinux.policy")
	if err == nil {
		err = unix.Mount("selinuxfs", dir, "selinuxfs", 0, "")
	}
	if err == nil {
		err = os.WriteFile(dir+"/load", policy, 0)
	}
	if err == nil {
		err = os.WriteFile(dir+"/enforce", []byte("1"), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
}
