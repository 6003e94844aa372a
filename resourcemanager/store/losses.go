package store

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/records"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
)

// Losses is the kind of records about what a repair could not restore, one sentence a line. While there is one, a container
// without a record is not assumed to have ended.
const Losses Kind = "loss"

// NoteLoss returns a record of a loss.
func NoteLoss(now time.Time, sentences []string) Put {
	return Put{Kind: Losses, Key: now.UTC().Format("2006-01-02T15:04:05.000Z"), Value: []byte(strings.Join(sentences, "\n"))}
}

// Examine reads every byte of a store and returns, one sentence each, which records are missing, as far as can be known.
// known is the expected store; zero if unknown.
func Examine(dir string, known records.ID) (*records.Report, []string, error) {
	apps := map[string]bool{}
	names := map[string]string{}
	report, err := records.Check(dir, known, func(key string, value []byte) {
		kind, name, _ := strings.Cut(key, separator)
		switch kind {
		case "app":
			apps[name] = true
		case "container":
			record := &storev1.Container{}
			if proto.Unmarshal(value, record) == nil {
				names[record.GetLease().GetAppId()] = record.GetLease().GetAppName()
			}
		case "ask", "instance":
			app, _, _ := strings.Cut(name, "/")
			names[app] = cmp.Or(names[app], app)
		case "memo":
			names[name] = cmp.Or(names[name], name)
		}
	})
	if err != nil {
		return nil, nil, err
	}
	lost := lostWith(report)
	for _, app := range slices.Sorted(maps.Keys(names)) {
		if report.Lossy() && !apps[app] {
			lost = append(lost, fmt.Sprintf("app %s (%s), which other records refer to", names[app], app))
		}
	}
	return report, lost, nil
}

// when is the time of a gap, as far as it is known.
func when(gap records.Gap) string {
	const form = "2006-01-02 15:04:05 MST"
	switch after, before := gap.After.Local(), gap.Before.Local(); {
	case gap.After.IsZero() && gap.Before.IsZero():
		return ""
	case gap.After.IsZero():
		return ", up to " + before.Format(form)
	case gap.Before.IsZero():
		return ", from " + after.Format(form) + " on"
	default:
		return fmt.Sprintf(", between %s and %s", after.Format(form), before.Format(form))
	}
}

// lostWith lists the records that are missing according to a report.
func lostWith(report *records.Report) []string {
	var lost []string
	for _, finding := range report.Findings {
		switch keys := finding.Keys; {
		case keys == nil:
		case keys.Count == 0:
			lost = append(lost, fmt.Sprintf("records after %s, in %s", recordName(keys.First), finding.File))
		case keys.First == keys.Last:
			lost = append(lost, recordName(keys.First))
		default:
			lost = append(lost, fmt.Sprintf("%d records from %s to %s", keys.Count, recordName(keys.First), recordName(keys.Last)))
		}
	}
	for _, gap := range report.Gaps {
		lost = append(lost, fmt.Sprintf("what was changed by commits %d to %d of %d%s", gap.First, gap.Last, report.Commits, when(gap)))
	}
	if report.EndUnknown {
		lost = append(lost, "the last changes; their number is unknown")
	}
	return lost
}

// recordName is a record's kind and key for people.
func recordName(key string) string {
	kind, name, ok := strings.Cut(key, separator)
	switch {
	case !ok:
		return fmt.Sprintf("%q", key)
	case Kind(kind) == events && len(name) == 8:
		return fmt.Sprintf("event %d", number(name))
	case kind == "":
		return "the store's own " + name
	case kind == name:
		return kind
	}
	return kind + " " + name
}

// Repair builds a complete store from what can be read of a damaged one, and records the losses in it. It returns the folder
// with the damaged files.
func Repair(dir string, known records.ID, now time.Time) (kept string, err error) {
	report, lost, err := Examine(dir, known)
	if err != nil {
		return "", err
	}
	repairing := records.Repairing{Known: known}
	if report.Lossy() {
		note := NoteLoss(now, lost)
		repairing.Notes = []records.Change{{Key: string(note.Kind) + separator + note.Key, Value: note.Value}}
	}
	return records.Repair(dir, repairing)
}
