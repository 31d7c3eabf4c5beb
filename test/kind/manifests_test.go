package kind

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// manifests are the YAML in a page that is whole objects, and begins its lines.
var manifests = regexp.MustCompile("(?ms)^```yaml\n(apiVersion:.*?)^```$")

// TestManifests has the API server judge the manifests in the documentation, with all their
// fields, in namespaces as they say. It knows nothing of other projects' objects.
func TestManifests(t *testing.T) {
	page, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, "create", "namespace", "monitoring")
	t.Cleanup(func() {
		_, _ = try(context.Background(), "kubectl", "delete", "namespace", "monitoring", "vms") // the cluster ends, too
	})
	judged := 0
	for _, block := range manifests.FindAllStringSubmatch(string(page), -1) {
		for object := range strings.SplitSeq(block[1], "\n---\n") {
			if regexp.MustCompile(`^apiVersion: [a-z.]+\.(io|com)/`).MatchString(object) {
				continue
			}
			file := filepath.Join(t.TempDir(), "object.yaml")
			if err := os.WriteFile(file, []byte(object), 0o600); err != nil {
				t.Fatal(err)
			}
			args := []string{"apply", "--validate=strict", "-f", file}
			if !strings.Contains(object, "\nkind: Namespace\n") { // the others are in it
				args = append(args, "--dry-run=server")
			}
			kubectl(t, args...)
			judged++
		}
	}
	if judged < 8 {
		t.Errorf("the page has %d manifests", judged)
	}
}
