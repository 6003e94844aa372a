package arch_test

import (
	"go/ast"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mammoth-os/mammoth/internal/bordertest"
)

// parts lists, by package, the types that own their state, and the files that may select their fields. Another part calls their methods.
var parts = map[string]map[string]string{
	"nodemanager/runtime/docker": {
		"Runtime":    "docker.go exec.go observe.go remove.go start.go watch.go",
		"engine":     "engine.go",
		"identities": "identity.go",
		"images":     "image.go",
		"pulls":      "image.go",
		"hostPorts":  "ports.go",
		"starts":     "starts.go",
		"discards":   "discard.go",
		"diskQuotas": "diskquota.go",
		"oomKills":   "oom.go",
		"signals":    "signals.go",
		"restorer":   "restore.go",
		"output":     "logs.go",
		"execution":  "exec.go",
	},
	"dynamicdeploy/driver": {
		"Master":     "commands.go decide.go master.go memo.go preview.go room.go status.go",
		"roles":      "role.go",
		"containers": "containers.go",
		"takeover":   "takeover.go",
		"previews":   "preview.go",
		"control":    "control.go",
		"sent":       "sent.go",
		"rollouts":   "rollouts.go status.go",
	},
	"dynamicdeploy/plan": {
		"Role":        "memo.go next.go role.go",
		"names":       "names.go",
		"slots":       "slots.go",
		"nodes":       "nodes.go",
		"node":        "nodes.go",
		"rollout":     "rollout.go",
		"order":       "order.go",
		"provisional": "failure.go",
		"view":        "view.go",
		"chooser":     "choose.go mode.go",
		"report":      "report.go",
	},
	"internal/manifest": {"decoder": "decode.go"},
	"resourcemanager/images": {
		"Store":          "http.go import.go registry.go store.go",
		"blobs":          "blobs.go",
		"contents":       "contents.go",
		"pendingBlobs":   "pending.go",
		"quotas":         "quota.go",
		"reservation":    "quota.go",
		"uploads":        "uploads.go",
		"upload":         "uploads.go",
		"examiner":       "examiner.go",
		"limiter":        "limiter.go",
		"collector":      "collector.go",
		"repositories":   "registry.go",
		"archiveUploads": "http.go",
	},
}

// records lists, by package, the types whose fields all parts read, and the files that may change them.
var records = map[string]map[string]string{
	"dynamicdeploy/driver": {"role": "role.go", "container": "containers.go"},
	"dynamicdeploy/plan":   {"slot": "slot.go", "container": "slot.go"},
}

func TestNoPartSelectsTheFieldsOfAnother(t *testing.T) {
	for dir, owned := range parts {
		var list []bordertest.Part
		for name, files := range owned {
			list = append(list, bordertest.Part{Types: []string{name}, Files: strings.Fields(files)})
		}
		bordertest.Read(t, filepath.Join(root, dir)).Selections(t, list)
	}
}

func TestARecordIsChangedByItsOwnFiles(t *testing.T) {
	for dir, owned := range records {
		bordertest.Read(t, filepath.Join(root, dir)).Records(t, owned)
	}
}

// A type with more methods is several things.
func TestNoTypeIsSeveralThings(t *testing.T) {
	const most = 40
	methods := map[string]int{}
	for _, file := range load(t) {
		top, _, _ := strings.Cut(file.path, "/")
		if _, governed := layers[top]; file.test || file.generated() || !governed || forTests(file.dir()) {
			continue
		}
		for _, declaration := range file.syntax.Decls {
			if function, ok := declaration.(*ast.FuncDecl); ok && function.Recv != nil {
				of := function.Recv.List[0].Type
				if pointer, ok := of.(*ast.StarExpr); ok {
					of = pointer.X
				}
				if name, ok := of.(*ast.Ident); ok {
					methods[file.dir()+"."+name.Name]++
				}
			}
		}
	}
	for of, n := range methods {
		if n > most {
			t.Errorf("%s has %d methods: divide it into what owns its state", of, n)
		}
	}
}
