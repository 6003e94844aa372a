package nodemanager

import (
	"bufio"
	"os"
	goruntime "runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/nodemanager/disk"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// OfferedCPU is how much cpu, in millicores, a machine of so many cores offers: a tenth more than it has. A cpu quota is an
// upper bound, and application masters have quotas of a tenth of a core each and use almost nothing; counted in full, those
// of a few apps would fill a small machine. Memory and disk are never overcommitted.
func OfferedCPU(cores int) int64 { return int64(cores) * 1100 }

// measured is the machine's capacity minus a reserve for the system and the engine: a tenth of the memory and at least 256
// MiB, and a tenth of the free disk. Cpu is OfferedCPU.
func measured(dir string, ports int64) resource.Vector {
	var v resource.Vector
	v[resource.CPU] = OfferedCPU(goruntime.NumCPU())
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		total := int64(info.Totalram) * int64(info.Unit)
		v[resource.Memory] = max(0, total-max(total/10, 256<<20))
	}
	if free, _, err := disk.Free(dir); err == nil {
		v[resource.Disk] = free - free/10
	}
	v[resource.Ports] = ports
	return v
}

// hostAttributes are the attributes of the machine for placement constraints.
func hostAttributes() map[string]*corev1.Attribute {
	attributes := map[string]*corev1.Attribute{
		"arch":  textAttribute(goruntime.GOARCH),
		"os":    textAttribute(goruntime.GOOS),
		"cores": {Value: &corev1.Attribute_Number{Number: float64(goruntime.NumCPU())}},
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		attributes["kernel"] = textAttribute(unix.ByteSliceToString(name.Release[:]))
		attributes["hostname"] = textAttribute(unix.ByteSliceToString(name.Nodename[:]))
	}
	if model := cpuModel(); model != "" {
		attributes["cpu_model"] = textAttribute(model)
	}
	return attributes
}

// engineAttributes are the attributes that a runtime reports.
func engineAttributes(info runtime.Info) map[string]*corev1.Attribute {
	attributes := map[string]*corev1.Attribute{}
	if info.Name != "" && info.Version != "" {
		attributes[info.Name+"_version"] = textAttribute(info.Version)
	}
	if info.CgroupVersion != 0 {
		attributes["cgroup_version"] = &corev1.Attribute{Value: &corev1.Attribute_Number{Number: float64(info.CgroupVersion)}}
	}
	if info.DiskQuota != "" && info.Name != "process" {
		attributes["disk_quota"] = textAttribute(info.DiskQuota)
	}
	return attributes
}

func textAttribute(text string) *corev1.Attribute {
	return &corev1.Attribute{Value: &corev1.Attribute_Text{Text: text}}
}

func flagAttribute(flag bool) *corev1.Attribute {
	return &corev1.Attribute{Value: &corev1.Attribute_Flag{Flag: flag}}
}

func cpuModel() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
