package simulate

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// quantiles is a distribution of which some quantiles are known. Between them it is linear on a logarithmic scale.
type quantiles []struct{ at, value float64 }

// These are distributions of batch work as published for large mixed clusters.
var (
	taskSeconds      = quantiles{{0, 5}, {0.5, 28}, {0.75, 155}, {0.9, 428}, {0.99, 2_566}, {1, 6_000}}
	instancesPerTask = quantiles{{0, 1}, {0.5, 2}, {0.75, 56}, {0.9, 375}, {0.99, 1_660}, {1, 3_000}}
	tasksPerJob      = quantiles{{0, 1}, {0.5, 5}, {0.9, 12}, {0.99, 28}, {1, 40}}
)

func (q quantiles) draw(random *rand.Rand) float64 {
	p := random.Float64()
	for i := 1; i < len(q); i++ {
		if low, high := q[i-1], q[i]; p <= high.at {
			part := (p - low.at) / (high.at - low.at)
			return math.Exp(math.Log(low.value) + part*(math.Log(high.value)-math.Log(low.value)))
		}
	}
	return q[len(q)-1].value
}

// Best-effort containers come in bursts: the time between two is Weibull with shape 0.54, their durations are
// lognormal with a median of 105 s and sigma 1.74.
const (
	weibullShape  = 0.54
	lognormalMean = 105
	lognormalWide = 1.74
)

// untilNext draws the time to the next of perHour arrivals an hour.
func untilNext(random *rand.Rand, perHour float64, bursts bool) time.Duration {
	mean := 3600 / perHour
	draw := random.ExpFloat64()
	if bursts {
		draw = math.Pow(draw, 1/weibullShape) / math.Gamma(1+1/weibullShape)
	}
	return seconds(mean * draw)
}

func bestEffortTime(random *rand.Rand) time.Duration {
	return max(seconds(lognormalMean*math.Exp(lognormalWide*random.NormFloat64())), time.Second)
}

func seconds(s float64) time.Duration {
	return time.Duration(min(s, 1e9) * float64(time.Second)).Round(time.Millisecond)
}

// job has containers that are submitted together and end after a while.
type job struct {
	at    time.Duration
	tasks []task
}

type task struct {
	instances int
	runs      time.Duration
	need      resource.Vector
}

// draw returns the tasks of a batch job or of one arrival.
func (w *Workload) draw(random *rand.Rand) []task {
	need := resource.Vector{resource.CPU: int64(w.CPU), resource.Memory: int64(w.Memory)}
	if w.Kind == "arrivals" {
		return []task{{instances: 1, runs: bestEffortTime(random), need: need}}
	}
	most := w.MaxInstances
	if most == 0 {
		most = math.MaxInt
	}
	tasks := make([]task, int(tasksPerJob.draw(random)))
	for i := range tasks {
		tasks[i] = task{
			instances: max(1, min(int(instancesPerTask.draw(random)), most)),
			runs:      seconds(taskSeconds.draw(random)), need: need,
		}
	}
	return tasks
}

// ReadTrace reads a CSV trace: one line a task, with the columns second (when it is submitted, from the scenario's
// start), job (lines of one job stand together), instances, seconds (how long each instance runs), cpu (cores, as in
// 0.5) and memory (as in 512MiB). The first line names the columns, in this order.
func ReadTrace(from io.Reader) ([]job, error) {
	reader := csv.NewReader(from)
	reader.FieldsPerRecord = 6
	var jobs []job
	last := ""
	for line := 1; ; line++ {
		fields, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return jobs, nil
		}
		if err != nil {
			return nil, err
		}
		if line == 1 {
			if fields[0] != "second" {
				return nil, errors.New("line 1: a trace begins with the line second,job,instances,seconds,cpu,memory")
			}
			continue
		}
		at, err1 := strconv.ParseFloat(fields[0], 64)
		instances, err2 := strconv.Atoi(fields[2])
		runs, err3 := strconv.ParseFloat(fields[3], 64)
		cpu, err4 := resource.ParseCPU(fields[4])
		memory, err5 := resource.ParseBytes(fields[5])
		if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		if !(at >= 0) || instances <= 0 || !(runs > 0) || cpu <= 0 {
			return nil, fmt.Errorf("line %d: a task needs a time, instances, seconds and cpu above zero", line)
		}
		if len(jobs) == 0 || fields[1] != last {
			jobs = append(jobs, job{at: seconds(at)})
			last = fields[1]
		}
		j := &jobs[len(jobs)-1]
		j.tasks = append(j.tasks, task{instances: instances, runs: seconds(runs), need: resource.Vector{resource.CPU: cpu, resource.Memory: memory}})
	}
}
