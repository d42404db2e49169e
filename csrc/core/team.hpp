// The threads that help a call with its tasks. A thread that is not scheduled costs nothing: tasks are
// claimed from a counter, the caller takes part, and waits only for tasks that another has begun.
#pragma once

#include <cstdint>

namespace glai {

// Must not throw: it may run on a thread that nobody catches for.
using Task = void (*)(void* context, std::int64_t task);

// Runs each task of [0, n_tasks) once, on this thread and at most `helpers` others, and returns when
// all are done. Called from within a task it runs them on this thread alone.
void run_tasks(std::int64_t n_tasks, int helpers, Task task, void* context);

}  // namespace glai
