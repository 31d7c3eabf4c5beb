package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// The plugin is installed, with options from a file, checked, and uninstalled.
func TestNodeInstall(t *testing.T) {
	dir := t.TempDir()
	bin, conf, options := filepath.Join(dir, "bin"), filepath.Join(dir, "net.d"), filepath.Join(dir, "options")
	list := filepath.Join(conf, "10-x.conflist")
	const network = `{"name":"x","cniVersion":"1.0.0","plugins":[{"type":"ptp"}]}`
	for _, d := range []string{bin, conf} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range map[string]string{list: network, options: `{"podPorts": "8080"}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	call := func(code int, want string, args ...string) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		args = append([]string{"node"}, append(args, "--cni-bin-dir", bin, "--cni-conf-dir", conf, "--state-dir", filepath.Join(dir, "state"))...)
		if got := execute(t.Context(), args, nil, &stdout, &stderr); got != code || !strings.Contains(stderr.String(), want) {
			t.Errorf("%q: code %d, %s%s; want %d, %q", args, got, &stdout, &stderr, code, want)
		}
	}
	call(exitFailed, "has yet to be changed", "install", "--check")
	call(exitDone, "installed plugin", "install", "--cni-options", options)
	call(exitDone, "", "install", "--check", "--cni-options", options)
	call(exitFailed, list+": has yet to be changed", "install", "--check")
	text, err := os.ReadFile(list)
	if want := `"podPorts": "8080", "stateDir": "` + filepath.Join(dir, "state") + `"}`; err != nil || !strings.Contains(string(text), want) {
		t.Errorf("the list is %s, %v; want %s", text, err, want)
	}
	call(exitFailed, "has yet to be changed", "uninstall", "--check")
	call(exitDone, "removed plugin", "uninstall")
	call(exitDone, "", "uninstall", "--check")
	if text, err := os.ReadFile(list); err != nil || string(text) != network {
		t.Errorf("the list is %s, %v", text, err)
	}

	call(exitUsage, "invalid character", "install", "--cni-options", "{podPorts}")
	call(exitUsage, "select can't be set here", "install", "--cni-options", `{"select": "all"}`)
	call(exitUsage, "podPort", "install", "--cni-options", `{"podPort": "8080"}`)
	call(exitUsage, "podPorts", "install", "--cni-options", `{"podPorts": "many"}`)
	call(exitFailed, "no such file", "install", "--cni-options", options+"2")
	call(exitUsage, `"-x" is not a host name`, "install", "--cni-options", `{"hostname": "-x"}`)
	call(exitUsage, "can't go together", "install", "--check", "--watch")
	call(exitUsage, "leave out --netns", "install", "--netns", "/proc/self/ns/net")
}

// Where no directory can be watched any more, the installer says what helps, and looks itself.
func TestNodeInstallWithoutInotify(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, d := range []string{"bin", "net.d"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := podtest.Command(context.WithoutCancel(t.Context()), nil, "unshare", "--user", "--map-root-user", "--kill-child", "--fork",
		"sh", "-c", `echo 0 >/proc/sys/user/max_inotify_instances && exec "$@"`, "sh",
		os.Args[0], "node", "install", "--watch", "--cni-bin-dir", dir+"/bin", "--cni-conf-dir", dir+"/net.d", "--state-dir", dir+"/state")
	var log podtest.Buffer
	cmd.Env, cmd.Stderr = append(os.Environ(), "VIRT_LAUNCHER_NET_TEST_MAIN=1"), &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	log.Wait(t, "there is no CNI configuration")
	if !strings.Contains(log.String(), "fs.inotify.max_user_instances") {
		t.Errorf("it logs\n%s", &log)
	}
	if err := os.WriteFile(filepath.Join(dir, "net.d", "10-x.conflist"), []byte(`{"name":"x","cniVersion":"1.0.0","plugins":[{"type":"ptp"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	log.Wait(t, "changed CNI configuration")
}
