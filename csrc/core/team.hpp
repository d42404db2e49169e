// The threads that help a call with its tasks, which are claimed from a counter; the caller takes part.
//
// As long as all of them have cores they are OpenMP's, which torch computes with too: two pools would
// compete, since OpenMP's threads keep their cores for a while after each region. But OpenMP's caller
// waits for every thread, and for milliseconds where one has lost its core. Once that has happened,
// helpers are threads of our own for a while. One that is not scheduled costs nothing: the caller waits
// only for tasks that a helper has begun.
#pragma once

#include <cstdint>

namespace glai {

// Must not throw: it may run on a thread that nobody catches for.
using Task = void (*)(void* context, std::int64_t task);

// Runs each task of [0, n_tasks) once, on this thread and at most `helpers` others, and returns when
// all are done. Called from within a task it runs them on this thread alone.
void run_tasks(std::int64_t n_tasks, int helpers, Task task, void* context);

}  // namespace glai
