-- Do customers come back? Those with one order against those with more: how many they are, and what they spend.
-- Only paid orders count, whatever their state is now. An item whose order is gone has no customer: it is left out.
WITH bought AS (
    SELECT "CustomerID", count(DISTINCT "OrderID") AS orders, sum("Revenue") AS spending
    FROM gold."FactSales"
    WHERE "IsPaid" AND "CustomerID" IS NOT NULL
    GROUP BY "CustomerID"
),
kinds AS (
    SELECT CASE WHEN orders > 1 THEN 'repeat' ELSE 'one-time' END AS customer_kind,
           count(*) AS customers, sum(orders) AS orders, sum(spending) AS spending
    FROM bought
    GROUP BY 1
)
SELECT customer_kind, customers, orders, spending,
       round(CAST(spending AS DOUBLE) / customers, 2) AS spending_per_customer,
       round(100.0 * spending / sum(spending) OVER (), 2) AS spending_percent
FROM kinds
ORDER BY customer_kind DESC;
