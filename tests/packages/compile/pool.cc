#include "sum.h"
#include <atomic>
#include <cstdio>
#include <numeric>
#include <thread>
#include <vector>

int main() {
    std::vector<long> numbers(10000);
    std::iota(numbers.begin(), numbers.end(), 0);
    std::atomic<long> total{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++)
        threads.emplace_back([&, i] { total += sum(&numbers[i * 2500], &numbers[i * 2500] + 2500); });
    for (auto &thread : threads) thread.join();
    std::printf("sum %ld of %zu threads\n", total.load(), threads.size());
}
